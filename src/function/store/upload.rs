//! Requests with a zip in them, or with the name of one: taken apart by a helper, since they are
//! larger than the server wants to be.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Deserialize as Derive, Serialize};
use serde_json::{Map, Value};

use super::Store;
use crate::function::record::CodeRecord;
use crate::function::tree::Trouble;
use crate::limits::{HELPER_REPLY_MAX, UPLOAD_BYTES_MAX, ZIP_BYTES_MAX};

/// A request without its zip, and what became of that.
#[derive(Clone, Debug, PartialEq, Serialize, Derive)]
pub struct Taken {
    /// All other members.
    pub request: Map<String, Value>,
    /// The code in the store; none if the request named no zip.
    pub code: Option<CodeRecord>,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Derive)]
pub enum Refused {
    /// It is not the JSON that it should be.
    Content(String),
    /// A parameter has no valid value, or the zip cannot be unpacked.
    Parameter(String),
    /// The zip is larger than Lambda allows.
    Zipped,
    /// The fault of the disk.
    Store(String),
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Refused {
        if let Trouble::Io(..) = trouble {
            return Refused::Store(trouble.to_string());
        }
        Refused::Parameter(trouble.to_string())
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Store(error.to_string())
    }
}

impl Store {
    /// Takes a request in which `member` (or the request itself, if that is empty) has a zip or
    /// names one of S3. The file is gone then.
    pub fn take(&self, upload: &Path, member: &str) -> Result<Taken, Refused> {
        let mut text = Vec::new();
        File::open(upload)?.take(UPLOAD_BYTES_MAX as u64).read_to_end(&mut text)?;
        fs::remove_file(upload)?;
        let parsed: Result<Object<'_>, _> = serde_json::from_slice(&text);
        let mut object = parsed.map_err(|error| {
            Refused::Content(format!("Could not parse request body into json: {error}"))
        })?;
        let place = match member {
            "" => Some(&mut object),
            member => object.inner.iter_mut().find(|(name, _)| name == member).map(|(_, o)| o),
        };
        let code = match place {
            Some(place) => self.take_code(place, upload)?,
            None => None,
        };
        let taken = Taken { request: object.into_map(), code };
        match serde_json::to_vec(&taken) {
            Ok(text) if text.len() < HELPER_REPLY_MAX => Ok(taken),
            _ => Err(Refused::Content("The request is too large beside its zip.".into())),
        }
    }

    fn take_code(&self, place: &Object<'_>, zip: &Path) -> Result<Option<CodeRecord>, Refused> {
        let text = |name: &str| place.other.get(name).and_then(Value::as_str);
        match (&place.zip, text("S3Bucket"), text("S3Key")) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                let message = "Please do not provide other FunctionCode parameters when providing \
                               a ZipFile.";
                return Err(Refused::Parameter(message.into()));
            }
            (Some(base64), None, None) => write_decoded(base64, zip)?,
            (None, Some(bucket), Some(key)) => {
                let object = self.object(bucket, key)?;
                // Never more than may be: who made the file need not have asked us.
                let mut source = File::open(object)?.take(ZIP_BYTES_MAX as u64 + 1);
                io::copy(&mut source, &mut File::create(zip)?)?;
            }
            (None, Some(_), None) | (None, None, Some(_)) => {
                let message = "S3Bucket and S3Key are given together.";
                return Err(Refused::Parameter(message.into()));
            }
            (None, None, None) => return Ok(None),
        }
        if fs::metadata(zip)?.len() > ZIP_BYTES_MAX as u64 {
            fs::remove_file(zip)?;
            return Err(Refused::Zipped);
        }
        Ok(Some(self.unpack(zip)?))
    }

    /// The file that stands for an object of S3.
    fn object(&self, bucket: &str, key: &str) -> Result<PathBuf, Refused> {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let is_inside = |text: &str| !text.is_empty() && Path::new(text).components().all(plain);
        let buckets = self.data.join("buckets");
        let path = buckets.join(bucket).join(key);
        let found = is_inside(bucket) && !bucket.contains('/') && is_inside(key) && path.is_file();
        let code = if buckets.join(bucket).is_dir() { "NoSuchKey" } else { "NoSuchBucket" };
        found.then_some(path).ok_or_else(|| {
            let file = Path::new("buckets").join(bucket).join(key);
            Refused::Parameter(format!(
                "Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: there is \
                 no file {} in the data directory.",
                file.display()
            ))
        })
    }
}

/// Writes what `text` is the base64 of, in pieces that are whole in both.
fn write_decoded(text: &str, path: &Path) -> Result<(), Refused> {
    let bad = |_| Refused::Content("The zip is not valid Base64.".to_owned());
    let mut file = File::create(path)?;
    let mut bytes = Vec::with_capacity(48 * 1024);
    for piece in text.as_bytes().chunks(64 * 1024) {
        bytes.clear();
        let decoded = BASE64_STANDARD.decode_vec(piece, &mut bytes).map_err(bad);
        if let Err(refused) = decoded.and_then(|()| Ok(file.write_all(&bytes)?)) {
            fs::remove_file(path)?;
            return Err(refused);
        }
    }
    Ok(())
}

/// A JSON object whose `ZipFile` is not copied.
#[derive(Default)]
struct Object<'a> {
    zip: Option<Cow<'a, str>>,
    /// Members that may have a zip themselves.
    inner: Vec<(String, Object<'a>)>,
    other: Map<String, Value>,
}

impl Object<'_> {
    fn into_map(self) -> Map<String, Value> {
        let mut map = self.other;
        for (name, inner) in self.inner {
            map.insert(name, inner.into_map().into());
        }
        map
    }
}

/// Members of requests that are objects with a zip in them.
const WITH_ZIP: [&str; 2] = ["Code", "Content"];

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<'de>, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "ZipFile" => object.zip = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0),
                name if WITH_ZIP.contains(&name) => {
                    object.inner.push((name.to_owned(), map.next_value()?));
                }
                _ => {
                    object.other.insert(name, map.next_value()?);
                }
            }
        }
        Ok(object)
    }
}

/// Text that is borrowed unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let data = tempfile::tempdir().expect("data");
        let store = Store::new(data.path());
        drop(store.open().expect("open"));
        (data, store)
    }

    fn zip() -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("run"), "#!/bin/sh\n").expect("written");
        let mut file = tempfile::tempfile().expect("a file");
        crate::function::package::pack(folder.path(), &mut file).expect("packed");
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut file).expect("rewound");
        file.read_to_end(&mut bytes).expect("read");
        bytes
    }

    fn take(store: &Store, member: &str, text: &str) -> Result<Taken, Refused> {
        let upload = store.incoming(7);
        fs::write(&upload, text).expect("written");
        let taken = store.take(&upload, member);
        assert!(!upload.exists(), "gone whatever came of it");
        taken
    }

    #[test]
    fn a_zip_in_a_request_becomes_code_and_the_rest_is_handed_on() {
        let (_data, store) = store();
        let zip = zip();
        let base64 = BASE64_STANDARD.encode(&zip);
        let text = format!(r#"{{"A":1,"Code":{{"ZipFile":"{base64}","B":null}}}}"#);
        let taken = take(&store, "Code", &text).expect("taken");
        assert_eq!(Value::from(taken.request), serde_json::json!({"A": 1, "Code": {"B": null}}));
        let code = taken.code.expect("code");
        assert_eq!(code.size, zip.len() as u64);
        let kept = store.zip(code.zip.as_deref().expect("a zip"));
        assert_eq!(fs::read(kept).expect("kept"), zip);
        assert!(store.code(&code.digest).join("run").exists());
        let escaped = format!(r#"{{"ZipFile":"{}"}}"#, base64.replace('/', "\\/"));
        assert_eq!(take(&store, "", &escaped).expect("taken").code, Some(code.clone()));
        fs::create_dir_all(store.data().join("buckets/b/k")).expect("made");
        fs::write(store.data().join("buckets/b/k/f.zip"), &zip).expect("written");
        let named = r#"{"S3Bucket":"b","S3Key":"k/f.zip"}"#;
        assert_eq!(take(&store, "", named).expect("taken").code, Some(code));
        let taken = take(&store, "Code", r#"{"Timeout":3}"#).expect("taken");
        assert_eq!(taken.code, None);
    }

    #[test]
    fn what_is_no_zip_in_json_is_refused_in_words() {
        let (data, store) = store();
        fs::write(data.path().join("secret"), "x").expect("written");
        fs::create_dir_all(data.path().join("buckets/b")).expect("made");
        for (text, part) in [
            ("", "Could not parse request body into json"),
            ("[]", "Could not parse request body into json"),
            (r#"{"ZipFile":5}"#, "Could not parse request body into json"),
            (r#"{"ZipFile":"a"}"#, "not valid Base64"),
            (r#"{"ZipFile":"AAAA"}"#, "Could not unzip uploaded file"),
            (r#"{"ZipFile":"AAAA","S3Bucket":"b","S3Key":"k"}"#, "Please do not provide other"),
            (r#"{"S3Bucket":"b"}"#, "given together"),
            (r#"{"S3Bucket":"b","S3Key":"k"}"#, "NoSuchKey"),
            (r#"{"S3Bucket":"c","S3Key":"k"}"#, "NoSuchBucket"),
            (r#"{"S3Bucket":"b","S3Key":"../../secret"}"#, "NoSuchKey"),
            (r#"{"S3Bucket":"..","S3Key":"secret"}"#, "there is no file"),
            (r#"{"S3Bucket":"b","S3Key":"/etc/passwd"}"#, "NoSuchKey"),
        ] {
            let refused = take(&store, "", text).expect_err(text);
            let (Refused::Content(message) | Refused::Parameter(message)) = &refused else {
                panic!("{text}: {refused:?}");
            };
            assert!(message.contains(part), "{text}: {message}");
        }
        let rest = fs::read_dir(data.path().join("incoming")).expect("there").count();
        assert_eq!(rest, 0, "nothing is left behind");
    }
}
