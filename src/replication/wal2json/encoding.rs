//! Server encodings other than UTF-8. wal2json writes in them, whatever the client's encoding; pgoutput does not.

use encoding_rs::{CoderResult, Encoding};

use crate::error::{Error, Result};

/// How to bring the text of a server to UTF-8 exactly as the server itself does.
///
/// encoding_rs has the encodings of the web. Where PostgreSQL differs, the characters concerned are listed here; all
/// characters that PostgreSQL 15 converts in these encodings were compared.
#[derive(Clone, Copy, Debug)]
pub struct ServerEncoding {
    base: &'static Encoding,
    /// Characters of two bytes from 0x80 on, of three after 0x8f (EUC).
    multibyte: bool,
    exceptions: &'static [Run],
}

/// Consecutive codes from the first on, and what PostgreSQL makes of them.
type Run = (u32, &'static [char]);

/// The control characters that ISO 8859 has where encoding_rs, like the web, takes windows-125x.
const CONTROLS: &[Run] = &[(0x80, &{
    let mut controls = ['\0'; 32];
    let mut at = 0;
    while at < controls.len() {
        controls[at] = (0x80 + at as u8) as char;
        at += 1;
    }
    controls
})];
const KOI8U: &[Run] = &[(0xae, &['╝']), (0xbe, &['╬'])];
const EUC_CN: &[Run] = &[(0xa1a4, &['・']), (0xa1aa, &['―'])];
const EUC_KR: &[Run] = &[(0xa2e8, &['㉾'])];
/// The rows that IBM added to JIS X 0212, and the broken bar.
const EUC_JP: &[Run] = &[
    (0x8fa2c3, &['￤']),
    (0x8ff3f3, &['ⅰ', 'ⅱ', 'ⅲ', 'ⅳ', 'ⅴ', 'ⅵ', 'ⅶ', 'ⅷ', 'ⅸ', 'ⅹ', 'Ⅰ', 'Ⅱ']),
    (
        0x8ff4a1,
        &[
            'Ⅲ', 'Ⅳ', 'Ⅴ', 'Ⅵ', 'Ⅶ', 'Ⅷ', 'Ⅸ', 'Ⅹ', '\u{ff07}', '＂', '㈱', '№', '℡', '炻', '仼', '僴', '凬', '匇',
            '匤', '\u{fa0e}', '咊', '坙', '\u{fa0f}', '\u{fa10}', '增', '寬', '峵', '嵓', '\u{fa11}', '德', '悅', '愠',
            '敎', '昻', '晥', '\u{fa12}', '\u{f929}', '栁', '\u{fa13}', '\u{fa14}', '橫', '櫢', '淸', '淲', '瀨',
            '\u{fa15}', '\u{fa16}', '甁', '皂', '皞', '\u{fa17}', '礰', '\u{fa18}', '\u{fa19}', '\u{fa1a}', '\u{fa1b}',
            '竧', '\u{fa1c}', '\u{fa1d}', '綠', '緖', '\u{fa1e}', '荢', '\u{fa1f}', '薰', '\u{fa20}', '\u{fa21}', '蠇',
            '\u{fa22}', '譿', '賴', '赶', '\u{fa23}', '\u{fa24}', '\u{fa25}', '郞', '\u{fa26}', '鄕', '\u{fa27}',
            '\u{fa28}', '閒', '\u{f9dc}', '\u{fa29}', '霻', '靍', '靑', '\u{fa2a}', '\u{fa2b}', '\u{fa2c}', '馞', '髙',
            '魲', '\u{fa2d}', '黑',
        ],
    ),
];

/// Returns how to read the text of a server with this `server_encoding`; `None` if it can be taken as it is.
pub(crate) fn encoding_for(server_encoding: &str) -> Result<Option<ServerEncoding>> {
    let single = |base| Ok(Some(ServerEncoding { base, multibyte: false, exceptions: &[] }));
    let patched = |base, exceptions| Ok(Some(ServerEncoding { base, multibyte: false, exceptions }));
    let euc = |base, exceptions| Ok(Some(ServerEncoding { base, multibyte: true, exceptions }));
    match server_encoding {
        "UTF8" | "SQL_ASCII" => Ok(None),
        "LATIN1" => patched(encoding_rs::WINDOWS_1252, CONTROLS),
        "LATIN2" => single(encoding_rs::ISO_8859_2),
        "LATIN3" => single(encoding_rs::ISO_8859_3),
        "LATIN4" => single(encoding_rs::ISO_8859_4),
        "LATIN5" => patched(encoding_rs::WINDOWS_1254, CONTROLS),
        "LATIN6" => single(encoding_rs::ISO_8859_10),
        "LATIN7" => single(encoding_rs::ISO_8859_13),
        "LATIN8" => single(encoding_rs::ISO_8859_14),
        "LATIN9" => single(encoding_rs::ISO_8859_15),
        "LATIN10" => single(encoding_rs::ISO_8859_16),
        "ISO_8859_5" => single(encoding_rs::ISO_8859_5),
        "ISO_8859_6" => single(encoding_rs::ISO_8859_6),
        "ISO_8859_7" => single(encoding_rs::ISO_8859_7),
        "ISO_8859_8" => single(encoding_rs::ISO_8859_8),
        "WIN866" => single(encoding_rs::IBM866),
        "WIN874" => single(encoding_rs::WINDOWS_874),
        "WIN1250" => single(encoding_rs::WINDOWS_1250),
        "WIN1251" => single(encoding_rs::WINDOWS_1251),
        "WIN1252" => single(encoding_rs::WINDOWS_1252),
        "WIN1253" => single(encoding_rs::WINDOWS_1253),
        "WIN1254" => single(encoding_rs::WINDOWS_1254),
        "WIN1255" => single(encoding_rs::WINDOWS_1255),
        "WIN1256" => single(encoding_rs::WINDOWS_1256),
        "WIN1257" => single(encoding_rs::WINDOWS_1257),
        "WIN1258" => single(encoding_rs::WINDOWS_1258),
        "KOI8R" => single(encoding_rs::KOI8_R),
        "KOI8U" => patched(encoding_rs::KOI8_U, KOI8U),
        "EUC_CN" => euc(encoding_rs::GBK, EUC_CN),
        "EUC_KR" => euc(encoding_rs::EUC_KR, EUC_KR),
        "EUC_JP" => euc(encoding_rs::EUC_JP, EUC_JP),
        other => Err(Error::run(format!(
            "wal2json writes in the database's encoding {other}, which can't be brought to UTF-8 exactly"
        ))
        .hint("use a slot with the plugin pgoutput, whose text the server converts")),
    }
}

impl ServerEncoding {
    /// Writes `bytes` in UTF-8 to `text`, whose memory is used again. What the encoding doesn't know becomes U+FFFD.
    pub(super) fn transcode(&self, bytes: &[u8], text: &mut String) {
        text.clear();
        let mut done = 0;
        let mut at = 0;
        while !self.exceptions.is_empty() {
            at += Encoding::ascii_valid_up_to(&bytes[at..]);
            let width = match bytes.get(at) {
                None => break,
                Some(_) if !self.multibyte => 1,
                Some(0x8f) => 3,
                Some(_) => 2,
            };
            let end = bytes.len().min(at + width);
            if let Some(char) = self.exception(&bytes[at..end]) {
                self.append(&bytes[done..at], text);
                text.push(char);
                done = end;
            }
            at = end;
        }
        self.append(&bytes[done..], text);
    }

    fn exception(&self, char: &[u8]) -> Option<char> {
        let code = char.iter().fold(0, |code, &byte| code << 8 | u32::from(byte));
        let of_run = |&(first, chars): &Run| chars.get(code.checked_sub(first)? as usize).copied();
        self.exceptions.iter().find_map(of_run)
    }

    fn append(&self, mut bytes: &[u8], text: &mut String) {
        let mut decoder = self.base.new_decoder_without_bom_handling();
        loop {
            // Room for the longest character at least, or the decoder would make no progress.
            text.reserve(bytes.len().max(16));
            let (result, read, _) = decoder.decode_to_string(bytes, text, true);
            match result {
                CoderResult::InputEmpty => return,
                CoderResult::OutputFull => bytes = &bytes[read..],
            }
        }
    }
}

#[cfg(test)]
mod tests;
