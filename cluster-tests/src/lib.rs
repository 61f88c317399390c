//! Runs real nodes and judges what clients saw.
