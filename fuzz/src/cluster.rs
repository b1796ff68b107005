//! Batches of the cluster: each frame is encoded again to the bytes that it came from, and a
//! node is the same under its id and under its name.

use beacon_wire::cluster::{DecodeError, FRAME_HEADER, Frame, Frames, encode};
use beacon_wire::ids::NodeId;
use beacon_wire::name::Name;

/// Takes one batch.
///
/// # Panics
/// Where a frame does not come back, or a decoder goes on after an error.
pub fn run(input: &[u8]) {
    let frames: Vec<Result<Frame<'_, Name>, DecodeError>> = Frames::new(input).collect();
    assert!(frames.iter().rev().skip(1).all(Result::is_ok), "goes on after an error");
    let mut rest = input;
    for frame in frames.iter().flatten() {
        let sent;
        (sent, rest) = rest.split_at(frame_length(rest));
        let mut out = Vec::new();
        encode(frame, &mut out);
        match frame {
            Frame::Unknown => assert!(out.is_empty()),
            // A later version may say more.
            Frame::Alive | Frame::Draining | Frame::TakesTcp | Frame::About(_) => {
                assert_eq!(out[0], sent[0]);
            }
            Frame::Packets(packets) => {
                assert_eq!(packets.iter().count(), packets.count());
                assert_eq!(out, sent);
            }
            Frame::Nack { .. }
            | Frame::Claim(_)
            | Frame::Granted { .. }
            | Frame::Refused { .. }
            | Frame::Moved { .. }
            | Frame::Leave { .. }
            | Frame::Left { .. }
            | Frame::Noted { .. }
            | Frame::Gone { .. }
            | Frame::Find { .. }
            | Frame::Found { .. }
            | Frame::Missing { .. }
            | Frame::Watch { .. }
            | Frame::Locate { .. }
            | Frame::Heard { .. }
            | Frame::Clock(_)
            | Frame::Channel(_) => assert_eq!(out, sent),
        }
    }
    for (by_id, by_name) in Frames::<NodeId>::new(input).zip(&frames) {
        let Ok(by_id) = by_id else { continue };
        let Ok(by_name) = by_name else {
            assert_eq!(by_id, Frame::Unknown, "{by_name:?}");
            continue;
        };
        if by_id != Frame::Unknown {
            let mut of_id = Vec::new();
            let mut of_name = Vec::new();
            encode(&by_id, &mut of_id);
            encode(by_name, &mut of_name);
            assert_eq!(of_id, of_name);
        }
    }
}

/// Length of the first frame, header included.
fn frame_length(batch: &[u8]) -> usize {
    let header = batch.first_chunk::<FRAME_HEADER>().expect("a frame that was decoded");
    let [_, a, b, c, d] = *header;
    FRAME_HEADER + u32::from_be_bytes([a, b, c, d]) as usize
}
