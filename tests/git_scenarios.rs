//! Everyday Git, done twice: in a plain clone and in a mount of the same repository, compared after each step.
//!
//! What is compared is in `scenarios/state.rs`: exit code and output of the
//! step, status, refs, index, and every path, mode, target and byte.
//! `scenarios/harness.rs` shows that each kind of difference is noticed. With
//! `LARDER_TEST_STAND_IN=1` a second plain clone takes the mount's part, which
//! shows that the scenarios themselves come out the same every time.

mod common;
mod scenarios;
