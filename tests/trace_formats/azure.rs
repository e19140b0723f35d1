//! Azure.

use crate::support::{Expected, check, data, read, read_trace};
use warmpath::trace::{Format, Provenance, Tally, Trace};

#[track_caller]
fn check_azure(name: &str, rows: usize, seconds: &str, prompt_mean: &str) {
    let read = read_trace(&Trace::open(data("azure").join(name)).unwrap()).unwrap();
    assert_eq!((read.format, read.records.len()), (Format::Azure, rows));
    assert_eq!(format!("{:.3}", read.records[rows - 1].at.as_secs_f64()), seconds);
    let sum: f64 = read.records.iter().map(|record| f64::from(record.prompt_tokens)).sum();
    assert_eq!(format!("{:.3}", sum / rows as f64), prompt_mean);
}

#[test]
fn azure_in_every_edition() {
    check_azure("AzureLLMInferenceTrace_code.csv.gz", 8819, "3435.948", "2047.848");
    check_azure("AzureLLMInferenceTrace_conv.csv.gz", 19_366, "3501.722", "1154.697");
    // A week less a few microseconds.
    check_azure("AzureLLMInferenceTrace_code_1week.head5_tail5.csv", 10, "604799.920", "2401.600");
    check_azure("AzureLLMInferenceTrace_conv_1week.head5_tail5.csv", 10, "604799.994", "1276.700");
    check_azure("AzureLMMInferenceTrace_multimodal.head5_tail5.csv", 10, "604799.695", "1285.900");
    let odd = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2024-05-10 00:00:00.5+00:00,9,1\r\n\
               2024-05-10 00:00:01+00:00,8,1\r\nyesterday,7,1\r\n2024-05-09 00:00:00+00:00,6,1\r\n2024-05-10 00:00:02,0,1";
    check(
        read(odd),
        Expected {
            format: Format::Azure,
            block_tokens: 16,
            provenance: Provenance::none(),
            // The earliest begins the trace, wherever it stands.
            records: &[(0, 6, 1, 1, 0), (86_400_500, 9, 1, 1, 0), (86_401_000, 8, 1, 1, 0)],
            tally: Tally { dropped_bad_time: 1, dropped_no_prompt: 1, ..Tally::default() },
        },
    );
}
