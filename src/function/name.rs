//! Names of functions as clients write them: a name, a partial or a full ARN, with or without a
//! qualifier.

use std::fmt;

use crate::io::{Put, Text};

/// Where this server says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// As in ARNs; a board is its own region.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

/// A function as a client named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionName<'a> {
    /// The bare name.
    pub name: &'a str,
    /// `$LATEST`, a version number or an alias, if one was given.
    pub qualifier: Option<&'a str>,
}

/// Why a text names no function here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadName {
    /// Not a name, not an ARN.
    Malformed,
    /// Longer than 64 characters.
    TooLong,
    /// A function of another region.
    OtherRegion(String),
    /// A function of another account.
    OtherAccount,
    /// Two qualifiers that do not agree.
    OtherQualifier,
}

/// A layer as a client named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerName<'a> {
    /// The bare name.
    pub name: &'a str,
    /// The number of a version, if one was given.
    pub version: Option<u32>,
}

/// Why a text names no layer here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLayer {
    /// Not a name, not an ARN.
    Malformed,
    /// A layer of another region.
    OtherRegion,
    /// A layer of another account.
    OtherAccount,
}

/// Most characters of a bare name.
pub const NAME_MAX: usize = 64;
/// Most characters of a layer's name.
const LAYER_NAME_MAX: usize = 140;
/// Most characters of a qualifier.
const QUALIFIER_MAX: usize = 128;
/// Most characters of a region.
pub const REGION_MAX: usize = 32;
/// Most characters of a function's ARN, its account of twelve digits and its qualifier included.
pub const ARN_MAX: usize = "arn:aws:lambda:".len()
    + REGION_MAX
    + ":000000000000:function:".len()
    + NAME_MAX
    + 1
    + QUALIFIER_MAX;

/// A bare name of one's own, without the heap.
pub type Name = heapless::String<NAME_MAX>;

/// True if `text` may be a function's name: letters, digits, `-` and `_`, 1 to 64 of them.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The function that every server has: it tells which server that is.
pub const PROBE: &str = "hob-probe";

/// True for the name of a function that is built into the server, which no other may have.
pub fn is_built_in(name: &str) -> bool {
    name == PROBE
}

/// True if `text` may be a layer's name.
pub fn is_layer_name(text: &str) -> bool {
    (1..=LAYER_NAME_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A layer and the number of its version, as `function.toml` writes them: `name:version`.
pub fn layer_version(text: &str) -> Option<(&str, u32)> {
    let (name, number) = text.split_once(':')?;
    let digits = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    let number = number.parse().ok().filter(|_| digits)?;
    is_layer_name(name).then_some((name, number))
}

fn is_qualifier(text: &str) -> bool {
    text == "$LATEST"
        || ((1..=QUALIFIER_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_$".contains(&b)))
}

/// A function's ARN, in its parts, of which the empty ones come last.
#[derive(Clone, Copy)]
pub struct Arn<'a>([&'a str; 8]);

impl<'a> Arn<'a> {
    /// An ARN that is there already, with the qualifier that a caller named.
    pub fn of(arn: &'a str, qualifier: Option<&'a str>) -> Arn<'a> {
        let (colon, qualifier) = after(qualifier);
        Arn([arn, colon, qualifier, "", "", "", "", ""])
    }
}

/// What follows an unqualified ARN.
fn after(qualifier: Option<&str>) -> (&str, &str) {
    qualifier.map_or(("", ""), |qualifier| (":", qualifier))
}

impl fmt::Display for Arn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| f.write_str(part))
    }
}

impl Put for Arn<'_> {
    fn put_into(&self, text: &mut Text) {
        for part in self.0.iter().take_while(|part| !part.is_empty()) {
            text.put(*part);
        }
    }
}

impl Home {
    /// The function's ARN, with the qualifier that it was named with.
    pub fn arn<'a>(&'a self, name: &'a str, qualifier: Option<&'a str>) -> Arn<'a> {
        let Home { region, account } = self;
        let (colon, qualifier) = after(qualifier);
        Arn(["arn:aws:lambda:", region, ":", account, ":function:", name, colon, qualifier])
    }

    /// A layer's ARN, or that of one of its versions.
    pub fn layer_arn(&self, layer: &str, version: Option<&str>) -> String {
        let Home { region, account } = self;
        let version = version.map(|version| format!(":{version}")).unwrap_or_default();
        format!("arn:aws:lambda:{region}:{account}:layer:{layer}{version}")
    }

    /// Understands a layer's name or ARN, with the version that the ARN has, if any.
    pub fn parse_layer<'a>(&self, text: &'a str) -> Result<LayerName<'a>, BadLayer> {
        if is_layer_name(text) {
            return Ok(LayerName { name: text, version: None });
        }
        let parts: heapless::Vec<&str, 9> = text.splitn(9, ':').collect();
        let ["arn", partition, "lambda", region, account, "layer", name, rest @ ..] = &*parts
        else {
            return Err(BadLayer::Malformed);
        };
        let version = match *rest {
            [] => None,
            [number] => Some(number.parse().map_err(|_| BadLayer::Malformed)?),
            _ => return Err(BadLayer::Malformed),
        };
        if !partition.starts_with("aws") || !is_layer_name(name) {
            return Err(BadLayer::Malformed);
        }
        if *region != self.region {
            return Err(BadLayer::OtherRegion);
        }
        if *account != self.account {
            return Err(BadLayer::OtherAccount);
        }
        Ok(LayerName { name, version })
    }

    /// The role of functions that have named none: there is no IAM here.
    pub fn role(&self) -> String {
        format!("arn:aws:iam::{}:role/hob", self.account)
    }

    /// Understands `name`, `name:qualifier`, `account:function:name[:qualifier]`,
    /// `function:name[:qualifier]` and full ARNs; `qualifier` is what the query string says.
    pub fn parse<'a>(
        &self,
        text: &'a str,
        qualifier: Option<&'a str>,
    ) -> Result<FunctionName<'a>, BadName> {
        // As nearly all clients spell it.
        if is_name(text) && qualifier.is_none_or(is_qualifier) {
            return Ok(FunctionName { name: text, qualifier });
        }
        // No spelling has more than eight parts; a ninth shows that there are too many.
        let parts: heapless::Vec<&str, 9> = text.splitn(9, ':').collect();
        let rest = match parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", rest @ ..] => {
                if !partition.starts_with("aws") {
                    return Err(BadName::Malformed);
                }
                if *region != self.region {
                    return Err(BadName::OtherRegion((*region).to_owned()));
                }
                self.check_account(account)?;
                rest
            }
            [account, "function", rest @ ..] if !account.is_empty() => {
                self.check_account(account)?;
                rest
            }
            ["function", rest @ ..] => rest,
            rest => rest,
        };
        let (name, own) = match *rest {
            [name] => (name, None),
            [name, own] => (name, Some(own)),
            _ => return Err(BadName::Malformed),
        };
        if name.len() > NAME_MAX {
            return Err(BadName::TooLong);
        }
        if !is_name(name) || ![own, qualifier].into_iter().flatten().all(is_qualifier) {
            return Err(BadName::Malformed);
        }
        if let (Some(own), Some(other)) = (own, qualifier)
            && own != other
        {
            return Err(BadName::OtherQualifier);
        }
        Ok(FunctionName { name, qualifier: own.or(qualifier) })
    }

    fn check_account(&self, account: &str) -> Result<(), BadName> {
        let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        match (digits, account == self.account) {
            (_, true) => Ok(()),
            (true, false) => Err(BadName::OtherAccount),
            (false, false) => Err(BadName::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { region: "us-east-1".into(), account: "000000000000".into() }
    }

    #[test]
    fn every_spelling_of_a_function_is_understood() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:demo";
        for (text, query, qualifier) in [
            ("demo", None, None),
            ("demo", Some("7"), Some("7")),
            ("demo:prod", None, Some("prod")),
            ("demo:$LATEST", Some("$LATEST"), Some("$LATEST")),
            ("function:demo", None, None),
            ("000000000000:function:demo", None, None),
            ("000000000000:function:demo:1", None, Some("1")),
            (arn, None, None),
            ("arn:aws:lambda:us-east-1:000000000000:function:demo:prod", None, Some("prod")),
        ] {
            let expected = FunctionName { name: "demo", qualifier };
            assert_eq!(home().parse(text, query), Ok(expected), "{text}");
        }
        assert_eq!(home().arn("demo", None).to_string(), arn);
        for qualifier in [None, Some("prod")] {
            let mut text = Text::default();
            text.put(Arn::of(arn, qualifier));
            assert_eq!(text.as_str(), home().arn("demo", qualifier).to_string());
        }
    }

    #[test]
    fn layers_are_named_by_name_or_arn() {
        let name = |name, version| Ok(LayerName { name, version });
        let long = "x".repeat(141);
        for (text, expected) in [
            ("deps", name("deps", None)),
            (&long[..140], name(&long[..140], None)),
            ("arn:aws:lambda:us-east-1:000000000000:layer:deps", name("deps", None)),
            ("arn:aws:lambda:us-east-1:000000000000:layer:deps:7", name("deps", Some(7))),
            (&long, Err(BadLayer::Malformed)),
            ("", Err(BadLayer::Malformed)),
            ("../x", Err(BadLayer::Malformed)),
            ("deps:1", Err(BadLayer::Malformed)),
            ("arn:aws:lambda:us-east-1:000000000000:layer:deps:x", Err(BadLayer::Malformed)),
            ("arn:aws:lambda:us-east-1:000000000000:layer:../x:1", Err(BadLayer::Malformed)),
            ("arn:aws:lambda:us-east-1:000000000000:layer:deps:1:2", Err(BadLayer::Malformed)),
            ("arn:aws:lambda:us-east-1:000000000000:function:deps:1", Err(BadLayer::Malformed)),
            ("arn:aws:lambda:eu-west-1:000000000000:layer:deps:1", Err(BadLayer::OtherRegion)),
            ("arn:aws:lambda:us-east-1:123456789012:layer:deps:1", Err(BadLayer::OtherAccount)),
        ] {
            assert_eq!(home().parse_layer(text), expected, "{text}");
        }
        assert_eq!(layer_version("deps:12"), Some(("deps", 12)));
        for bad in ["deps", "deps:", "deps:0", "deps:01", "deps:+1", "a b:1", "deps:4294967296"] {
            assert_eq!(layer_version(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_names_no_function_here_is_told_apart() {
        let long = "x".repeat(65);
        for (text, query, bad) in [
            ("", None, BadName::Malformed),
            ("a b", None, BadName::Malformed),
            ("a/../b", None, BadName::Malformed),
            ("a:b:c:d", None, BadName::Malformed),
            ("arn:aws:s3:us-east-1:000000000000:function:demo", None, BadName::Malformed),
            (&long, None, BadName::TooLong),
            ("demo:1", Some("2"), BadName::OtherQualifier),
            ("123456789012:function:demo", None, BadName::OtherAccount),
            (
                "arn:aws:lambda:eu-west-1:000000000000:function:demo",
                None,
                BadName::OtherRegion("eu-west-1".into()),
            ),
        ] {
            assert_eq!(home().parse(text, query), Err(bad), "{text}");
        }
    }
}
