//! Group policies: GroupVPN.
