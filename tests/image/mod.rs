//! `drawbridge image` as a program against the emulator, which checks blocks, checksums and counts as EBS does.

mod policy;
mod prune;
mod publish;
mod refusals;
mod resume;
mod stage;
