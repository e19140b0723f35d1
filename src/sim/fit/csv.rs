//! Measurements as comma-separated values, told apart by their heading.

use super::Measurement;

/// Why a file of measurements cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasurementsError {
    /// Neither kind of heading.
    #[error("the heading has neither the columns {} nor {}", STEP.join(", "), REQUEST.join(", "))]
    Heading,
    /// A row lacks a column or has something else than a number in it.
    #[error("line {line}: {column} is not a number: {found:?}")]
    Number {
        /// Which, from 1.
        line: usize,
        /// Which column.
        column: &'static str,
        /// What is there.
        found: String,
    },
}

/// One engine step a row.
const STEP: [&str; 5] =
    ["prefill_tokens", "prefill_context_tokens", "decode_sequences", "decode_context_tokens", "seconds"];
/// One request a row, each sent alone: what `warmpath load --csv` writes.
const REQUEST: [&str; 5] = ["prompt_tokens", "cached_tokens", "output_tokens", "ttft_s", "end_to_end_s"];

impl Measurement {
    /// Reads rows of either kind, in any order of columns; other columns are passed over.
    ///
    /// A step computes `prefill_tokens` after `prefill_context_tokens`, beside `decode_sequences` requests that attend to
    /// `decode_context_tokens` together. A request is two measurements, one until its first token and one from there, and is
    /// taken to have been alone: requests that waited or shared steps make the fit slower than the engine is.
    pub fn read_csv(text: &str, step_tokens: u32) -> Result<Vec<Measurement>, MeasurementsError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let heading: Vec<&str> = lines.next().map_or(Vec::new(), |(_, line)| line.split(',').map(str::trim).collect());
        let places = |columns: [&'static str; 5]| {
            let places = columns.map(|column| heading.iter().position(|name| *name == column));
            places.iter().all(Option::is_some).then(|| places.map(Option::unwrap_or_default))
        };
        let (kind, columns, places) = match (places(STEP), places(REQUEST)) {
            (Some(places), _) => (Kind::Step, STEP, places),
            (None, Some(places)) => (Kind::Request, REQUEST, places),
            (None, None) => return Err(MeasurementsError::Heading),
        };
        let mut measurements = Vec::new();
        for (at, line) in lines {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let mut numbers = [0.0; 5];
            for ((number, column), place) in numbers.iter_mut().zip(columns).zip(places) {
                let found = fields.get(place).copied().unwrap_or_default();
                // An endpoint that does not tell what was cached is taken to cache nothing.
                let text = if found.is_empty() && column == "cached_tokens" { "0" } else { found };
                *number = text.parse().map_err(|_| MeasurementsError::Number {
                    line: at + 1,
                    column,
                    found: found.to_owned(),
                })?;
            }
            match kind {
                Kind::Step => measurements.push(step(numbers)),
                Kind::Request => measurements.extend(request(numbers, f64::from(step_tokens))),
            }
        }
        Ok(measurements)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Step,
    Request,
}

fn step([prefill, context, sequences, decode_context, seconds]: [f64; 5]) -> Measurement {
    let prefilling = f64::from(u8::from(prefill > 0.0));
    Measurement {
        steps: 1.0,
        tokens: prefill + sequences,
        pairs: prefill * (context + prefill / 2.0),
        decode_context,
        sequences: sequences + prefilling,
        seconds,
    }
}

fn request([prompt, cached, output, ttft, end]: [f64; 5], step_tokens: f64) -> Vec<Measurement> {
    let mut measurements = vec![Measurement::prefill(prompt, cached, step_tokens, ttft)];
    let later = output - 1.0;
    // Tokens that came together say nothing of a step.
    if later > 0.0 && end != ttft {
        let decode_context = later * (prompt + output / 2.0);
        let decode = Measurement {
            steps: later,
            tokens: later,
            pairs: 0.0,
            decode_context,
            sequences: later,
            seconds: end - ttft,
        };
        measurements.push(decode);
    }
    measurements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_requests_are_read_by_name() {
        let steps = "seconds,prefill_tokens,decode_sequences,prefill_context_tokens,decode_context_tokens,note\n\
                     0.5,100,2,50,900,x\n\n0.1,0,4,0,4000,y\n";
        let read = Measurement::read_csv(steps, 8192).unwrap();
        let mixed =
            Measurement { steps: 1.0, tokens: 102.0, pairs: 1e4, decode_context: 900.0, sequences: 3.0, seconds: 0.5 };
        assert_eq!(read, [mixed, Measurement::decode(4.0, 4000.0, 0.1)]);

        let requests = "due_s,ttft_s,end_to_end_s,prompt_tokens,cached_tokens,output_tokens\n0,0.2,1.2,3000,,11\n1,0.1,0.1,300,16,2\n";
        let read = Measurement::read_csv(requests, 2048).unwrap();
        assert_eq!((read.len(), read[0].steps, read[2].tokens), (3, 2.0, 284.0));
        assert_eq!((read[1].seconds, read[1].decode_context), (1.0, 10.0 * 3005.5));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let heading = Measurement::read_csv("a,b\n1,2\n", 1).unwrap_err().to_string();
        assert!(heading.starts_with("the heading has neither the columns prefill_tokens, "), "{heading}");
        let row =
            "prefill_tokens,prefill_context_tokens,decode_sequences,decode_context_tokens,seconds\n1,2,3,4,fast\n";
        let error = Measurement::read_csv(row, 1).unwrap_err().to_string();
        assert_eq!(error, "line 2: seconds is not a number: \"fast\"");
    }
}
