//! `drawbridge image` as a program against the emulator, which checks blocks, checksums and counts as EBS does.

mod publish;
mod stage;
