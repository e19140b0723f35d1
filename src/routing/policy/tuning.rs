//! A policy's numbers, by name: `dynamo:overlap_weight=20:temperature=0.1`.

use super::kind::{PolicyKind, UnknownPolicy};
use std::fmt;
use std::str::FromStr;

/// One number of a policy, to be read or set.
#[derive(Debug)]
pub struct Parameter<'a> {
    name: &'static str,
    meaning: &'static str,
    value: &'a mut f64,
}

impl<'a> Parameter<'a> {
    pub(super) fn new(name: &'static str, meaning: &'static str, value: &'a mut f64) -> Self {
        Parameter { name, meaning, value }
    }
}

/// One number of a policy, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterInfo {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What it is unless set.
    pub default: f64,
}

impl ParameterInfo {
    pub(super) fn of(parameter: &Parameter<'_>) -> Self {
        ParameterInfo { name: parameter.name, meaning: parameter.meaning, default: *parameter.value }
    }
}

/// What differs from a policy's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// By position in [`PolicyKind::parameters`].
    values: [Option<f64>; Tuning::PARAMETERS_MAX],
    hold_steps: Option<f64>,
}

impl Tuning {
    /// No policy has more numbers than this.
    const PARAMETERS_MAX: usize = 8;

    /// The same, where requests are held by so many steps, from 0, which is not at all, to [`HOLD_STEPS_MAX`].
    pub fn with_hold(self, steps: f64) -> Self {
        Tuning { hold_steps: Some(steps.clamp(0.0, HOLD_STEPS_MAX)), ..self }
    }

    pub(super) fn apply(&self, parameters: Vec<Parameter<'_>>) {
        assert!(parameters.len() <= Self::PARAMETERS_MAX, "a policy with more numbers than can be tuned");
        for (parameter, value) in parameters.into_iter().zip(self.values) {
            if let Some(value) = value {
                *parameter.value = value;
            }
        }
    }
}

/// A policy and its tuning, as written on a command line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicySpec {
    /// Which policy.
    pub kind: PolicyKind,
    /// What differs from its defaults.
    pub tuning: Tuning,
}

impl PolicySpec {
    /// Behind how much prefill no request is placed, in engine steps that are full of it: until then the router holds it, and while
    /// others would wait long for it in the next one. Any policy may hold.
    pub fn hold(&self) -> Option<f64> {
        Some(self.tuning.hold_steps.unwrap_or(self.kind.hold_steps())).filter(|steps| *steps > 0.0)
    }

    /// The same, holding by what its policy holds by.
    pub fn without_hold(self) -> Self {
        PolicySpec { tuning: Tuning { hold_steps: None, ..self.tuning }, ..self }
    }

    /// Whether what it holds by was said, rather than left to the policy.
    pub fn says_hold(&self) -> bool {
        self.tuning.hold_steps.is_some()
    }
}

impl From<PolicyKind> for PolicySpec {
    fn from(kind: PolicyKind) -> Self {
        PolicySpec { kind, tuning: Tuning::default() }
    }
}

/// The policy's name and, where something was tuned, what: reads back as itself.
impl fmt::Display for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        for (parameter, value) in self.kind.parameters().iter().zip(self.tuning.values) {
            if let Some(value) = value {
                write!(f, ":{}={value}", parameter.name)?;
            }
        }
        if let Some(steps) = self.tuning.hold_steps {
            write!(f, ":{HOLD}={steps}")?;
        }
        Ok(())
    }
}

/// What every policy can be given.
const HOLD: &str = "hold";
/// Nothing is held for more prefill than this, in steps.
pub const HOLD_STEPS_MAX: f64 = 1000.0;

/// Why a policy with parameters could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicySpecError {
    /// No such policy.
    #[error(transparent)]
    Policy(#[from] UnknownPolicy),
    /// Not `name=value`.
    #[error("{given:?} after policy {policy} is not name=value")]
    NotAPair {
        /// Which policy.
        policy: PolicyKind,
        /// What was written.
        given: String,
    },
    /// The policy has no such number.
    #[error("policy {policy} has no parameter {name:?}; it has {}", names(*policy))]
    UnknownParameter {
        /// Which policy.
        policy: PolicyKind,
        /// What was asked for.
        name: String,
    },
    /// Not a number, or one that is negative or without end.
    #[error("parameter {name} of policy {policy} must be a number of at least 0, not {given:?}")]
    BadValue {
        /// Which policy.
        policy: PolicyKind,
        /// Which parameter.
        name: &'static str,
        /// What was written.
        given: String,
    },
}

fn names(policy: PolicyKind) -> String {
    let names: Vec<&str> = policy.parameters().iter().map(|parameter| parameter.name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl FromStr for PolicySpec {
    type Err = PolicySpecError;

    fn from_str(text: &str) -> Result<Self, PolicySpecError> {
        let mut parts = text.split(':');
        let policy: PolicyKind = parts.next().unwrap_or_default().parse()?;
        let mut tuning = Tuning::default();
        for part in parts {
            let given = || part.to_owned();
            let (name, value) =
                part.split_once('=').ok_or_else(|| PolicySpecError::NotAPair { policy, given: given() })?;
            if name == HOLD {
                let number = value.parse().ok().filter(|number| (0.0..=HOLD_STEPS_MAX).contains(number));
                tuning.hold_steps =
                    Some(number.ok_or(PolicySpecError::BadValue { policy, name: HOLD, given: value.to_owned() })?);
                continue;
            }
            let parameters = policy.parameters();
            let at = parameters.iter().position(|parameter| parameter.name == name);
            let at = at.ok_or_else(|| PolicySpecError::UnknownParameter { policy, name: name.to_owned() })?;
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
            let (name, given) = (parameters[at].name, value.to_owned());
            tuning.values[at] = Some(number.ok_or(PolicySpecError::BadValue { policy, name, given })?);
        }
        Ok(PolicySpec { kind: policy, tuning })
    }
}
