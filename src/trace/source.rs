//! Where the bytes of a trace come from, compressed or not.

use super::error::TraceError;
use super::parquet::{self, Rows};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A trace's bytes, readable any number of times.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    /// One conversation a file, in order of name.
    Folder {
        path: PathBuf,
        files: Vec<PathBuf>,
    },
    /// Part of the program; the name stands in for a path in messages.
    Bundled {
        name: PathBuf,
        bytes: &'static [u8],
    },
}

pub(super) type Bytes = Box<dyn Read + Send>;

/// What a file holds.
pub(super) enum Part {
    Bytes(Bytes),
    /// Of a Parquet file.
    Rows(Box<Rows>),
}

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

impl Source {
    pub(super) fn of(path: &Path) -> Result<Source, TraceError> {
        let path = path.to_owned();
        let failed = |path: PathBuf| move |source| TraceError::Io { path, source };
        let metadata = std::fs::metadata(&path).map_err(failed(path.clone()))?;
        if metadata.is_file() {
            return Ok(Source::File(path));
        }
        if !metadata.is_dir() {
            return Err(TraceError::NotAFile { path });
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed(path.clone()))? {
            let file = entry.map_err(failed(path.clone()))?.path();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if [".json", ".json.gz", ".json.zst", ".parquet"].iter().any(|end| name.ends_with(end)) {
                files.push(file);
            }
        }
        files.sort_unstable();
        if files.is_empty() { Err(TraceError::EmptyFolder { path }) } else { Ok(Source::Folder { path, files }) }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Source::File(path) | Source::Folder { path, .. } => path,
            Source::Bundled { name, .. } => name,
        }
    }

    /// Its size in bytes, as it is stored, where that tells how far reading has come.
    pub(super) fn bytes(&self) -> Option<u64> {
        let size = |path: &PathBuf| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        match self {
            Source::File(path) => size(path),
            Source::Folder { files, .. } => files.iter().map(size).sum(),
            Source::Bundled { bytes, .. } => Some(bytes.len() as u64),
        }
    }

    /// Each file, decompressed, opened when its turn comes. What is read is added to `count`.
    pub(super) fn parts(&self, count: &Arc<AtomicU64>) -> Box<dyn Iterator<Item = (PathBuf, io::Result<Part>)> + Send> {
        let of_bundled = Arc::clone(count);
        let count = Arc::clone(count);
        let open = move |path: PathBuf| {
            let part = File::open(&path).and_then(|file| part(file, &count));
            (path, part)
        };
        match self {
            Source::File(path) => Box::new(std::iter::once(path.clone()).map(open)),
            Source::Folder { files, .. } => Box::new(files.clone().into_iter().map(open)),
            Source::Bundled { name, bytes } => {
                let bytes = decompressed(counted(Box::new(*bytes), &of_bundled)).map(Part::Bytes);
                Box::new(std::iter::once((name.clone(), bytes)))
            }
        }
    }
}

/// Counts what is read of it.
struct Counted {
    inner: Bytes,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// `bytes`, counted while they are read.
pub(super) fn counted(bytes: Bytes, count: &Arc<AtomicU64>) -> Bytes {
    Box::new(Counted { inner: bytes, count: Arc::clone(count) })
}

/// What a file holds, known by its first bytes.
fn part(mut file: File, count: &Arc<AtomicU64>) -> io::Result<Part> {
    let mut magic = Vec::with_capacity(parquet::MAGIC.len());
    file.by_ref().take(parquet::MAGIC.len() as u64).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(match magic == parquet::MAGIC {
        true => Part::Rows(Box::new(Rows::open(file)?)),
        false => Part::Bytes(decompressed(counted(Box::new(file), count))?),
    })
}

/// What `raw` holds, whether or not it is compressed with gzip or Zstandard; known by its first bytes.
pub(super) fn decompressed(mut raw: Bytes) -> io::Result<Bytes> {
    let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
    raw.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let (gzip, zstd) = (magic.starts_with(GZIP_MAGIC), magic == ZSTD_MAGIC);
    let whole = Cursor::new(magic).chain(raw);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(ZstdFrames { raw: Some(BufReader::new(Box::new(whole))), frame: None })
    } else {
        Box::new(whole)
    })
}

type Zstd = ruzstd::decoding::StreamingDecoder<BufReader<Bytes>, ruzstd::decoding::FrameDecoder>;

/// Frame after frame: parallel compressors write several, and so does `cat`.
struct ZstdFrames {
    raw: Option<BufReader<Bytes>>,
    frame: Option<Box<Zstd>>,
}

impl Read for ZstdFrames {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let damaged = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.read(into).map_err(|error| damaged(error.to_string()))? {
                    0 if !into.is_empty() => self.raw = self.frame.take().map(|frame| frame.into_inner()),
                    read => return Ok(read),
                }
            }
            let Some(mut raw) = self.raw.take() else { return Ok(0) };
            if raw.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(Box::new(Zstd::new(raw).map_err(|error| damaged(error.to_string()))?));
        }
    }
}
