//! The journal of a commit.
