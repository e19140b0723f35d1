//! The files that a tokenizer is made of: in a folder as on Hugging Face's hub, or in the archive of them that an engine hands out.

use super::TokenizerError;
use std::collections::HashMap;
use std::io::{Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// What is read of them.
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";

/// A file of an archive takes no more when it is unpacked: the largest tokenizers take a tenth of this.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;

pub(super) enum Files {
    Folder(PathBuf),
    Archive { from: PathBuf, files: HashMap<&'static str, Vec<u8>> },
}

impl Files {
    /// Those in a zip archive's bytes, which came from `from`.
    pub fn unpack(archive: &[u8], from: &Path) -> Result<Self, TokenizerError> {
        let failed = |reason: String| TokenizerError::Archive { from: from.to_owned(), reason };
        let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(|error| failed(error.to_string()))?;
        let mut files = HashMap::new();
        for name in [TOKENIZER, CONFIG, TEMPLATE] {
            let file = match archive.by_name(name) {
                Ok(file) => file,
                Err(zip::result::ZipError::FileNotFound) => continue,
                Err(error) => return Err(failed(format!("{name}: {error}"))),
            };
            let mut unpacked = Vec::new();
            file.take(UNPACKED_BYTES_MAX + 1)
                .read_to_end(&mut unpacked)
                .map_err(|error| failed(format!("{name}: {error}")))?;
            if unpacked.len() as u64 > UNPACKED_BYTES_MAX {
                return Err(failed(format!("{name} unpacks to more than {UNPACKED_BYTES_MAX} bytes")));
            }
            files.insert(name, unpacked);
        }
        Ok(Files::Archive { from: from.to_owned(), files })
    }

    /// Where they are from.
    pub fn from(&self) -> &Path {
        match self {
            Files::Folder(from) | Files::Archive { from, .. } => from,
        }
    }

    /// A file's bytes; `None` where there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, TokenizerError> {
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(TokenizerError::Read { path, source }),
                }
            }
            Files::Archive { files, .. } => Ok(files.get(name).cloned()),
        }
    }

    /// A file's bytes, where it must be there.
    pub fn expect(&self, name: &str) -> Result<Vec<u8>, TokenizerError> {
        self.read(name)?
            .ok_or_else(|| TokenizerError::Read { path: self.from().join(name), source: ErrorKind::NotFound.into() })
    }
}
