//! Is it routing well, and if not, why: the workload, the policy, or the index?

use super::{Journal, Shares};
use crate::routing::Knowledge;
use serde::{Deserialize, Serialize};

/// Where to look when not enough is served from caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suspect {
    /// Nothing was routed lately.
    Idle,
    /// Most of what could be cached is, and is found.
    Nothing,
    /// Prompts share little with what is cached anywhere.
    Workload,
    /// More is cached than where requests are sent.
    Policy,
    /// Instances have less, or more, cached than the index says.
    Index,
}

/// Is it routing well, and if not, why?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In one word.
    pub suspect: Suspect,
    /// In one sentence.
    pub says: String,
    /// The share of prompt tokens cached at the best instance, over the last five minutes. Of the same requests as the others.
    pub best: Option<f64>,
    /// The same at the chosen instance.
    pub chosen: Option<f64>,
    /// The same as instances reported it; missing where hardly any answer says.
    pub delivered: Option<f64>,
}

/// Steps that a verdict looks at: five minutes.
const LATELY: usize = 60;
/// A difference of so many points is worth a look.
const WIDE: f64 = 0.05;
/// A difference that last tokens, and blocks evicted while a request waited, cannot explain.
const UNTRUE: f64 = 0.10;
/// Less than this share cached anywhere is little.
const LITTLE: f64 = 0.10;

impl Verdict {
    /// What the last steps say, beside how far the index is to be believed about each instance.
    pub(in crate::serve) fn of(journal: &Journal, knowledge: &[Knowledge]) -> Self {
        Verdict::about(journal.lately(LATELY).shares(), knowledge)
    }

    fn about(shares: Option<Shares>, knowledge: &[Knowledge]) -> Self {
        let Some(Shares { best, chosen, delivered }) = shares else {
            let says = "Nothing was routed in the last five minutes.".to_owned();
            return Verdict { suspect: Suspect::Idle, says, best: None, chosen: None, delivered: None };
        };
        let unsure = knowledge.iter().filter(|knowledge| **knowledge != Knowledge::Exact).count();
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let (suspect, says) = match delivered {
            Some(delivered) if (chosen - delivered).abs() > UNTRUE => (
                Suspect::Index,
                format!(
                    "The index: {} of prompt tokens were predicted to be cached, and {} were delivered; {unsure} of {} \
                     instances are not known exactly.",
                    percent(chosen),
                    percent(delivered),
                    knowledge.len()
                ),
            ),
            _ if best - chosen > WIDE => (
                Suspect::Policy,
                format!(
                    "The policy, or too little capacity: {} of prompt tokens were cached somewhere, and {} where they \
                     were sent, because load outweighed the rest.",
                    percent(best),
                    percent(chosen)
                ),
            ),
            _ if best < LITTLE => (
                Suspect::Workload,
                format!(
                    "The workload, or caches that are too small: only {} of prompt tokens were cached anywhere.",
                    percent(best)
                ),
            ),
            _ => (
                Suspect::Nothing,
                format!("Routing well: {} of prompt tokens were cached where they were sent.", percent(chosen)),
            ),
        };
        Verdict { suspect, says, best: Some(best), chosen: Some(chosen), delivered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_names_who_is_to_blame() {
        let shares = |best, chosen, delivered| Some(Shares { best, chosen, delivered });
        for (shares, suspect) in [
            (None, Suspect::Idle),
            (shares(0.9, 0.88, Some(0.88)), Suspect::Nothing),
            // Answers that do not say what was cached prove nothing against the index; those that say so do.
            (shares(0.9, 0.88, None), Suspect::Nothing),
            (shares(0.9, 0.88, Some(0.0)), Suspect::Index),
            (shares(0.03, 0.03, Some(0.03)), Suspect::Workload),
            (shares(0.9, 0.5, Some(0.5)), Suspect::Policy),
            (shares(0.9, 0.9, Some(0.6)), Suspect::Index),
            (shares(0.2, 0.2, Some(0.6)), Suspect::Index),
        ] {
            let verdict = Verdict::about(shares, &[Knowledge::Degraded]);
            assert_eq!(verdict.suspect, suspect, "{shares:?} {verdict:?}");
        }
    }
}
