//! The keys that are shown to instances, as headers that no log shows.

pub(crate) mod key;

use crate::config::{ApiKey, InstanceAccess};
use axum::http::HeaderValue;
use key::{bearer, read};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// All that are configured.
pub(in crate::serve) struct ApiKeys {
    /// That of instances without one of their own.
    fleet: Option<ApiKey>,
    /// What the files hold that were named so far.
    files: RwLock<BTreeMap<PathBuf, HeaderValue>>,
}

/// A key cannot be had. What the file holds is not told.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// Its file cannot be read.
    #[error("cannot read the API key in {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What it holds is none.
    #[error("{} holds no API key: its first line must be one, of printable ASCII without blanks", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
}

impl ApiKeys {
    /// No file is read yet.
    pub fn new(fleet: Option<ApiKey>) -> Self {
        ApiKeys { fleet, files: RwLock::default() }
    }

    /// Reads the files of these instances, and that of the fleet; nothing is changed by an error.
    pub fn load<'a>(&self, instances: impl IntoIterator<Item = &'a InstanceAccess>) -> Result<(), ApiKeyError> {
        let keys = instances.into_iter().map(|access| access.api_key.as_ref()).chain([self.fleet.as_ref()]);
        let mut files = BTreeMap::new();
        for path in keys.flatten().filter_map(path) {
            files.insert(path.clone(), read(path)?);
        }
        *self.files.write() = files;
        Ok(())
    }

    /// Reads the file of an instance that joins, where it is not known yet.
    pub fn add(&self, access: &InstanceAccess) -> Result<(), ApiKeyError> {
        if let Some(path) = access.api_key.as_ref().and_then(path)
            && !self.files.read().contains_key(path)
        {
            let key = read(path)?;
            self.files.write().insert(path.clone(), key);
        }
        Ok(())
    }

    /// The files that keys were read from.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.read().keys().cloned().collect()
    }

    /// Reads them again; nothing is changed by an error.
    pub fn reload(&self) -> Result<(), ApiKeyError> {
        let read = self.files().into_iter().map(|path| read(&path).map(|key| (path, key)));
        let files = read.collect::<Result<BTreeMap<_, _>, _>>()?;
        *self.files.write() = files;
        Ok(())
    }

    /// What an instance is shown, as `Authorization`.
    pub fn of(&self, access: &InstanceAccess) -> Option<HeaderValue> {
        match access.api_key.as_ref().or(self.fleet.as_ref())? {
            ApiKey::Here(key) => bearer(key.expose()),
            ApiKey::File(path) => self.files.read().get(path).cloned(),
        }
    }
}

fn path(key: &ApiKey) -> Option<&PathBuf> {
    match key {
        ApiKey::Here(_) => None,
        ApiKey::File(path) => Some(path),
    }
}
