//! Settling: what became again what the base says is no change any more.
