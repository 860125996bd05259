//! Frames: tunnel header, Ethernet, IP, TCP and UDP views, virtio-net header, classification.
