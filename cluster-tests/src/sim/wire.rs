//! Messages pass through the node's own frames: encoded, decoded, compared.

use bytes::BytesMut;
use quorate_protocol::core::message::{Append, Message};
use quorate_protocol::entry::Entry;
use quorate_protocol::wire::{
    AppendHeader, ControlFrame, LogDecoder, decode_control, encode_control, encode_log_header,
};

/// Whether a message comes out of its frame as it went in. `entries` are those of an append.
///
/// # Errors
/// What became of it.
pub(super) fn pass(message: &Message, entries: &[Entry]) -> Result<(), String> {
    match message {
        Message::Append(append) if !append.entries.is_empty() => pass_log(append, entries),
        _ => pass_control(message),
    }
}

fn pass_control(message: &Message) -> Result<(), String> {
    let sent = ControlFrame::Core(message.clone());
    let mut out = Vec::new();
    encode_control(&sent, &mut out).map_err(|error| format!("{message:?}: {error}"))?;
    let mut buffer = BytesMut::from(&out[..]);
    match decode_control(&mut buffer) {
        Ok(Some(received)) if received == sent && buffer.is_empty() => Ok(()),
        received => Err(format!("{message:?} arrives as {received:?}, {} left", buffer.len())),
    }
}

fn pass_log(append: &Append, entries: &[Entry]) -> Result<(), String> {
    let mut out = Vec::new();
    encode_log_header(&AppendHeader::of(append), entries, &mut out)
        .map_err(|error| format!("{append:?}: {error}"))?;
    for entry in entries {
        out.extend_from_slice(&entry.record());
    }
    let mut buffer = BytesMut::from(&out[..]);
    match LogDecoder::default().decode(&mut buffer) {
        Ok(Some((received, records)))
            if received == *append && records == entries && buffer.is_empty() =>
        {
            Ok(())
        }
        received => Err(format!("{append:?} arrives as {received:?}, {} left", buffer.len())),
    }
}
