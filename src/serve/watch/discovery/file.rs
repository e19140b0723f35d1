//! A file of instances, looked at now and then.
//!
//! As with the configuration the text is compared, and two looks must agree before a change is taken in: a file may be half
//! written, and a ConfigMap's is a link that is turned to another folder.

use super::Tell;
use crate::config;
use std::path::Path;
use std::time::Duration;

/// Looks for ever.
pub(super) async fn watch(path: &Path, poll: Duration, tell: &Tell) {
    let mut seen: Option<Result<String, String>> = None;
    let mut changing = None;
    loop {
        let now = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string());
        // The first look is taken as it is: there is nothing yet that could be spoilt.
        if seen.is_none() || (seen.as_ref() != Some(&now) && changing.as_ref() == Some(&now)) {
            tell.say(read(path, now.as_deref())).await;
            changing = None;
            seen = Some(now);
        } else if seen.as_ref() != Some(&now) {
            changing = Some(now);
        } else {
            changing = None;
        }
        tokio::time::sleep(poll / 2).await;
    }
}

fn read(path: &Path, text: Result<&str, &String>) -> Result<Vec<config::Instance>, String> {
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    config::instances(text, is_json).map_err(|invalid| format!("{} is not valid: {invalid}", path.display()))
}
