//! Cgroups of sandboxes, on v1, v2 and hybrid hosts.
