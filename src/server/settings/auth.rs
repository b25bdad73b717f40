//! `[auth]`: the token and the keys.

use crate::api::auth::{Auth, Credentials, Key, Scope, digest};
use crate::config::Section;
use crate::function::name::is_name;
use crate::limits::{AUTH_FUNCTIONS_MAX, AUTH_KEYS_MAX};

/// Most characters of a key's id, as on AWS.
const ID_MAX: usize = 128;

/// Reads the section.
pub fn read(section: &Section<'_>) -> Credentials {
    let some = |text: &str| !text.is_empty();
    let keys: Vec<Key> =
        section.tables("keys", key).unwrap_or_default().into_iter().flatten().collect();
    if keys.len() > AUTH_KEYS_MAX {
        let count = keys.len();
        section.refuse("keys", format_args!("{count} keys, allowed: up to {AUTH_KEYS_MAX}"));
    }
    for (n, key) in keys.iter().enumerate() {
        if keys[..n].iter().any(|other| other.id == key.id) {
            let id = &key.id;
            section
                .refuse("keys", format_args!("{id:?} is there twice, allowed: one key of an id"));
        }
    }
    let token = section.text("token", "text", some).map(Auth::digest);
    let is_digest = |text: &str| digest(text).is_some();
    let hashed = section.text("token_sha256", "64 hexadecimal digits", is_digest).and_then(digest);
    if token.is_some() && hashed.is_some() {
        section.refuse("token_sha256", "goes without token");
    }
    let strict = section.boolean("strict").unwrap_or(false);
    Credentials { token: token.or(hashed), keys, strict }
}

fn key(section: &Section<'_>) -> Option<Key> {
    let is_id = |text: &str| {
        (1..=ID_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let id = section.text("id", "1 to 128 letters, digits, - and _", is_id);
    // Whatever it is, it must not stand in a complaint.
    let secret = section.text("secret", "text that is not empty", |text| !text.is_empty());
    for name in ["id", "secret"] {
        if !section.has(name) {
            section.refuse(name, "is missing");
        }
    }
    let scope = match section.choice("scope", &["admin", "invoke"]) {
        Some(1) => Scope::Invoke,
        None | Some(_) => Scope::Admin,
    };
    let is_pattern = |text: &str| {
        let start = text.strip_suffix('*');
        is_name(start.unwrap_or(text)) || start == Some("")
    };
    let allowed = "functions' names, whole or with * at the end";
    let functions = section.texts("functions", allowed, is_pattern);
    if let Some(count) = functions.as_ref().map(Vec::len)
        && !(1..=AUTH_FUNCTIONS_MAX).contains(&count)
        && section.texts("functions", allowed, |_| true).is_some_and(|all| all.len() == count)
    {
        let most = AUTH_FUNCTIONS_MAX;
        section.refuse("functions", format_args!("{count} of them, allowed: 1 to {most}"));
    }
    Some(Key {
        id: id?.to_owned(),
        secret: secret?.to_owned(),
        scope,
        functions: functions.unwrap_or_else(|| vec!["*".to_owned()]),
        is_local: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn read_text(text: &str) -> Result<Credentials, Vec<String>> {
        let issues = |issues: Vec<crate::config::Issue>| {
            issues.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        Source::new("hob.toml", text).read(read).map_err(issues)
    }

    #[test]
    fn keys_are_read_with_their_scope_and_functions() {
        let text = "keys = [{ id = \"AKIA\", secret = \"s/+=\" },\n\
                    { id = \"B\", secret = \"t\", scope = \"invoke\", functions = [\"a\", \"b-*\"] }]";
        let credentials = read_text(text).expect("valid");
        let [first, second] = &credentials.keys[..] else { panic!("two keys") };
        assert_eq!((&*first.id, &*first.secret, first.scope), ("AKIA", "s/+=", Scope::Admin));
        assert_eq!((first.functions.as_slice(), first.is_local), (&["*".to_owned()][..], false));
        assert_eq!((&*second.id, second.scope), ("B", Scope::Invoke));
        assert_eq!(second.functions, ["a", "b-*"]);
        assert!(!credentials.is_empty());
        assert!(read_text("").expect("valid").is_empty());
        let token = read_text(&format!("token_sha256 = \"{}\"", "0f".repeat(32))).expect("valid");
        assert_eq!(token.token, Some([0x0F; 32]));
    }

    #[test]
    fn what_is_no_key_is_refused_by_its_place() {
        let key = "keys = [{ id = \"A\", secret = \"s\"";
        let many = "\n{ id = \"A\", secret = \"s\" },".repeat(33);
        for (text, complaint) in [
            ("keys = [{ id = \"a\" }]", ":1: keys.secret: is missing"),
            ("keys = [{ secret = \"a\" }]", ":1: keys.id: is missing"),
            (
                "keys = [{ id = \"a\", secret = \"\" }]",
                ":1: keys.secret: \"\" is not valid, allowed: ",
            ),
            (
                "keys = [{ id = \"a/b\", secret = \"s\" }]",
                ":1: keys.id: \"a/b\" is not valid, allow",
            ),
            ("keys = 1", ":1: keys: is a whole number, allowed: a list of tables, [[keys]]"),
            ("tokens = 1", ":1: tokens: unknown key, allowed: keys, strict, token, token_sha256"),
            (
                &format!("{key}, scop = \"x\" }}]"),
                ":1: keys.scop: unknown key, allowed: functions, id",
            ),
            (
                &format!("{key}, scope = \"root\" }}]"),
                ":1: keys.scope: \"root\" is not valid, allowed",
            ),
            (
                &format!("{key}, functions = [] }}]"),
                ":1: keys.functions: 0 of them, allowed: 1 to 128",
            ),
            (
                &format!("{key}, functions = [\"a*b\"] }}]"),
                ":1: keys.functions: \"a*b\" is not valid",
            ),
            (
                &format!("{key}, functions = \"*\" }}]"),
                ":1: keys.functions: is text, allowed: a list",
            ),
            (
                &format!("{key} }},\n{{ id = \"A\", secret = \"t\" }}]"),
                ":1: keys: \"A\" is there twice",
            ),
            (&format!("keys = [{many}]"), ":1: keys: 33 keys, allowed: up to 32"),
            ("token = \"\"", ":1: token: \"\" is not valid, allowed: text"),
            ("token_sha256 = \"0f\"", ":1: token_sha256: \"0f\" is not valid, allowed: 64 hexadec"),
        ] {
            let issues = read_text(text).expect_err(text);
            assert!(issues[0].starts_with(&format!("hob.toml{complaint}")), "{issues:?}");
        }
    }
}
