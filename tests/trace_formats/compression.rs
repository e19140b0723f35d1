//! Compressed files.

use crate::support::read;

/// What the command `zstd` makes of the Mooncake lines below, twice, one frame after the other.
#[test]
fn zstandard_is_read_frame_after_frame() {
    let line = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 5, \"hash_ids\": [0]}\n";
    let frame = ruzstd::encoding::compress_to_vec(line.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let both = read([frame.clone(), frame.clone()].concat()).unwrap();
    assert_eq!(both.records.len(), 2);
    let cut = read(&frame[..frame.len() - 5]).err().unwrap().to_string();
    assert!(cut.contains("line 1"), "{cut}");
}
