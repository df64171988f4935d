//! What a layer's file holds: its tar archive, whatever it is compressed by, and the digests of both.
//!
//! Not here: what is then done with the archive; see [`super::unpack`].

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The first byte of a zstd frame to be skipped is 0x50 to 0x5f (RFC 8878, 3.1.2); such frames carry tables of contents.
const ZSTD_SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The archive in a layer. Its compression is recognised by its first bytes: media types are often wrong.
///
/// # Errors
/// The source cannot be read.
pub(super) fn archive<'a>(mut source: BufReader<impl Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let magic = source.fill_buf()?;
    let is_zstd = magic.starts_with(&ZSTD)
        || (magic.first().is_some_and(|byte| byte & 0xf0 == 0x50) && magic.get(1..4) == Some(&ZSTD_SKIPPED));
    Ok(match magic.starts_with(&GZIP) {
        true => Box::new(MultiGzDecoder::new(source)),
        false if is_zstd => Box::new(ZstdFrames { source, decoder: FrameDecoder::new(), in_frame: false }),
        false => Box::new(source),
    })
}

/// All frames of a zstd stream, one after another; the library reads one.
struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    /// Whether there is one more.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => drop(io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?),
                Err(error) => return Err(invalid(error.to_string())),
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let (said, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        match said.is_none() || said == found {
            true => Ok(()),
            false => Err(invalid("the checksum of a zstd frame is wrong".to_owned())),
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.begin()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded =
                    self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| invalid(error.to_string()))?;
            }
            match self.decoder.read(buffer)? {
                0 if !buffer.is_empty() => self.end()?,
                count => return Ok(count),
            }
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Notes what passes through it: how much, and its digest.
pub(super) struct Noting<R> {
    source: R,
    digest: Sha256,
    count: u64,
    most: u64,
}

impl<R: Read> Noting<R> {
    /// More than `most` bytes are an error.
    pub(super) fn new(source: R, most: u64) -> Self {
        Self { source, digest: Sha256::new(), count: 0, most }
    }

    /// Reads what is left, and returns the digest of all.
    pub(super) fn finish(mut self) -> io::Result<(String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((text(self.digest), self.count))
    }
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.digest.update(buffer.get(..count).unwrap_or_default());
        self.count = self.count.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        match self.count > self.most {
            true => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than the {} bytes that it may have", self.most),
            )),
            false => Ok(count),
        }
    }
}

/// Of some bytes, as a digest is written.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    text(Sha256::new_with_prefix(bytes))
}

pub(super) fn text(digest: Sha256) -> String {
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
