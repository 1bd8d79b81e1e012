//! Drawbridge.
