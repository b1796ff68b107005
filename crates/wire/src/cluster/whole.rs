//! Finds the end of the last whole frame in a stream of them, for lanes that carry frames without
//! a length around each batch.

use super::{FRAME_HEADER, MAX_BATCH};

/// A frame that no batch has room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a frame of {length} bytes")]
pub struct FrameTooLong {
    /// Its length, header included.
    pub length: usize,
}

/// How many bytes the whole frames take that `stream` begins with; it begins with a frame.
///
/// # Errors
/// One of them, or the one that is not whole, is longer than any batch.
pub fn whole_frames(stream: &[u8]) -> Result<usize, FrameTooLong> {
    let mut end = 0;
    while let Some(rest) = stream.get(end..)
        && let Some((header, body)) = rest.split_first_chunk::<FRAME_HEADER>()
    {
        let [_, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_BATCH - FRAME_HEADER {
            return Err(FrameTooLong { length: length.saturating_add(FRAME_HEADER) });
        }
        if body.len() < length {
            break;
        }
        end += FRAME_HEADER + length;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![0xff];
        frame.extend(u32::try_from(length).unwrap().to_be_bytes());
        frame.resize(FRAME_HEADER + length, 7);
        frame
    }

    #[test]
    fn frame_that_no_batch_has_room_for_is_refused_before_it_has_come() {
        let longest = MAX_BATCH - FRAME_HEADER;
        assert_eq!(whole_frames(&frame(longest)), Ok(MAX_BATCH));
        let too_long = frame(longest + 1);
        assert_eq!(whole_frames(&too_long[..5]), Err(FrameTooLong { length: MAX_BATCH + 1 }));
        assert_eq!(whole_frames(&[frame(3), too_long].concat()).unwrap_err().length, MAX_BATCH + 1);
        assert!(whole_frames(&[0xff; 5]).is_err());
    }

    proptest! {
        #[test]
        fn any_cut_ends_behind_the_last_whole_frame(
            lengths in prop::collection::vec(0_usize..300, 0..20), cut in 0_usize..3_000,
        ) {
            let frames: Vec<_> = lengths.iter().map(|length| frame(*length)).collect();
            let stream = frames.concat();
            let stream = &stream[..cut.min(stream.len())];
            let whole = whole_frames(stream).unwrap();
            let mut ends = frames.iter().scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            });
            prop_assert_eq!(whole, ends.by_ref().take_while(|end| *end <= stream.len()).last().unwrap_or(0));
        }

        #[test]
        fn any_bytes_are_cut_or_refused_without_a_panic(
            stream in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Ok(whole) = whole_frames(&stream) {
                prop_assert!(whole <= stream.len());
                prop_assert_eq!(whole_frames(&stream[..whole]), Ok(whole));
            }
        }
    }
}
