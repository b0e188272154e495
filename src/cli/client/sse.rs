//! Server-sent events from bytes, as they arrive: whatever the reads cut, the events are the same.
//!
//! Lines end with LF, CRLF or CR; fields other than `data` and comments are passed over; several `data` lines of one event
//! are joined by a line feed. What stands before the end of the stream without an empty line after it is an event too:
//! some servers leave the last one out.

/// Collects bytes into events.
#[derive(Debug, Default)]
pub struct SseDecoder {
    /// The line so far, without its end.
    line: Vec<u8>,
    /// The event's data so far.
    data: Option<Vec<u8>>,
    /// The byte before was CR: LF belongs to the same end.
    after_cr: bool,
    /// A first line has been read, so no byte order mark can follow.
    begun: bool,
}

impl SseDecoder {
    /// Takes bytes in; returns the data of the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                other => self.line.push(*other),
            }
            self.after_cr = *byte == b'\r';
        }
        events
    }

    /// The event that the end of the stream completes.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        let event = self.end_line();
        event.or_else(|| self.data.take())
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.begun, true);
        let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| first).unwrap_or(&line);
        if line.is_empty() {
            return self.data.take();
        }
        let value = line.strip_prefix(b"data:").map(|value| value.strip_prefix(b" ").unwrap_or(value));
        if let Some(value) = value {
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut decoder = SseDecoder::default();
        let mut found: Vec<_> = parts.iter().flat_map(|part| decoder.feed(part)).collect();
        found.extend(decoder.finish());
        found
    }

    #[test]
    fn comments_other_fields_and_empty_events_are_passed_over() {
        let found = events(&[b": keepalive\n\n\nevent: x\nid: 3\ndata: {}\nretry: 1\n\ndatabase: no\n\n"]);
        assert_eq!(found, [b"{}"]);
    }

    #[test]
    fn every_line_end_and_a_missing_space_are_understood() {
        assert_eq!(events(&[b"data:1\r\n\r\ndata: 2\r\rdata:  3\n\n"]), [&b"1"[..], b"2", b" 3"]);
    }

    #[test]
    fn data_lines_of_one_event_are_joined() {
        assert_eq!(events(&[b"data: a\ndata: b\n\n"]), [b"a\nb"]);
    }

    #[test]
    fn the_last_event_counts_without_an_empty_line() {
        assert_eq!(events(&[b"data: 1\n\ndata: [DONE]"]), [&b"1"[..], b"[DONE]"]);
        assert_eq!(events(&[b"data: [DONE]\n"]), [b"[DONE]"]);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_beginning_only() {
        assert_eq!(events(&[b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n"]), [b"1"]);
    }

    #[test]
    fn bytes_that_are_no_text_come_through_unchanged() {
        assert_eq!(events(&[b"data: \xff\x00\xc3\n\n"]), [b"\xff\x00\xc3"]);
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_where_reads_cut(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"data: x\n\r\n:\xc3\xa9\n\r".to_vec()), 0..80),
            cuts in proptest::collection::vec(0usize..80, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(&parts), events(&[&bytes]));
        }
    }
}
