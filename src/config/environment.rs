//! Environment variables above the file.
//!
//! The separator is two underscores, because settings have single ones, and because Kubernetes gives every container
//! `WARMPATH_PORT` and the like for a service that is called warmpath.

use super::problem::Problem;

const PREFIX: &str = "WARMPATH__";

/// The file's text with what the environment says about its sections; as it is where nothing does.
pub(super) fn overlay(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String, Vec<Problem>> {
    let ours = environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
    let mut ours: Vec<(String, String)> = ours.collect();
    ours.sort();
    // A file that cannot be read at all is reported with its own lines, not those of what is made of it here.
    let mut file = match text.parse::<toml::Table>() {
        Ok(file) if !ours.is_empty() => file,
        Ok(_) | Err(_) => return Ok(text.to_owned()),
    };
    let problems: Vec<Problem> =
        ours.into_iter().filter_map(|(name, value)| set(&mut file, &name, value).err()).collect();
    if problems.is_empty() { Ok(file.to_string()) } else { Err(problems) }
}

fn set(file: &mut toml::Table, name: &str, value: String) -> Result<(), Problem> {
    let problem = |what: &str| Problem {
        path: name.to_owned(),
        what: what.to_owned(),
        advice: format!("write {PREFIX}SECTION__SETTING for a setting of `warmpath config example`"),
    };
    let path = name[PREFIX.len()..].to_ascii_lowercase();
    let (section, setting) = path.split_once("__").ok_or_else(|| problem("names no setting"))?;
    let example: toml::Table = super::Config::EXAMPLE.parse().expect("a test reads the example");
    let known = example.get(section).and_then(toml::Value::as_table).and_then(|section| section.get(setting));
    let known = known.ok_or_else(|| problem("names no setting of a section"))?;
    // What is a text in the example is one here, whatever it looks like; all else is written as in the file.
    let value = match known {
        toml::Value::String(_) => toml::Value::String(value),
        _ => {
            let line = format!("value = {value}").parse::<toml::Table>();
            let value = line.ok().and_then(|mut line| line.remove("value"));
            value.ok_or_else(|| problem("is not written as in a file"))?
        }
    };
    let section = file.entry(section).or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().ok_or_else(|| problem("stands above what is no section in the file"))?;
    section.insert(setting.to_owned(), value);
    Ok(())
}
