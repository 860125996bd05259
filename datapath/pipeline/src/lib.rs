//! Egress and ingress of a batch: route, cut, seal and open, join.
