//! What policies allow, as it is looked up for every call that nothing else allows.

use litemap::LiteMap;
use serde_json::Value;

use super::{LATEST, Policy};
use crate::function::url::UrlAuth;

/// One statement of a policy that a caller here can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The version or alias that it is about; that of the function itself is `$LATEST`'s.
    of: Box<str>,
    /// `*`, or the ARN of a user.
    principal: Box<str>,
    /// `lambda:InvokeFunction` and the like; `*` ends what begins with the same.
    action: Box<str>,
    /// Only through a function URL with this rule.
    url_auth: Option<Box<str>>,
}

/// A call that asks to be allowed.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// As the caller qualified the function.
    pub qualifier: Option<&'a str>,
    /// Who calls; none: anybody.
    pub user: Option<&'a str>,
    /// Which action.
    pub action: &'a str,
    /// The rule of the function URL that it comes through.
    pub url_auth: Option<UrlAuth>,
}

impl Grant {
    /// Those of a function. Statements about services and other accounts are for AWS to use.
    pub fn of_policies(policies: &LiteMap<String, Policy>) -> Vec<Grant> {
        let all = policies.iter().flat_map(|(of, policy)| {
            policy.statements.iter().filter_map(|statement| Grant::read(of, statement))
        });
        all.collect()
    }

    fn read(of: &str, statement: &Value) -> Option<Grant> {
        let principal = &statement["Principal"];
        let principal = principal.as_str().or_else(|| principal["AWS"].as_str())?;
        let mut url_auth = None;
        for (_, operands) in statement["Condition"].as_object().into_iter().flatten() {
            for (key, value) in operands.as_object()? {
                match key.as_str() {
                    "lambda:FunctionUrlAuthType" => url_auth = value.as_str().map(Into::into),
                    // The action says the same.
                    "lambda:InvokedViaFunctionUrl" => {}
                    // Nothing that comes to this server can show it.
                    _ => return None,
                }
            }
        }
        let action = statement["Action"].as_str()?.into();
        Some(Grant { of: of.into(), principal: principal.into(), action, url_auth })
    }

    /// True if it allows this.
    pub fn allows(&self, wish: Wish<'_>) -> bool {
        let action = match self.action.strip_suffix('*') {
            Some(start) => wish.action.starts_with(start),
            None => *self.action == *wish.action,
        };
        let rule = wish.url_auth.map(UrlAuth::name);
        *self.of == *wish.qualifier.unwrap_or(LATEST)
            && action
            && (*self.principal == *"*" || wish.user == Some(&*self.principal))
            && self.url_auth.as_ref().is_none_or(|wanted| rule == Some(&**wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_statement_allows_what_it_says_and_no_more() {
        let statements = vec![
            json!({"Sid": "1", "Principal": {"AWS": "arn:u/A"}, "Action": "lambda:InvokeFunction"}),
            json!({"Sid": "2", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:*"}),
            json!({"Sid": "3", "Principal": "*", "Action": "lambda:InvokeFunctionUrl",
                "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}}),
            json!({"Sid": "4", "Principal": "*", "Action": "lambda:*",
                "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}}}),
        ];
        let policy = Policy { statements, revision_id: "r".into() };
        let all = LiteMap::from_iter([(LATEST.to_owned(), policy)]);
        let grants = Grant::of_policies(&all);
        assert_eq!(grants.len(), 2, "what only AWS can show is left out");
        let (invoke, url) = ("lambda:InvokeFunction", "lambda:InvokeFunctionUrl");
        for (qualifier, user, action, url_auth, allowed) in [
            (None, Some("arn:u/A"), invoke, None, true),
            (None, Some("arn:u/B"), invoke, None, false),
            (None, None, invoke, None, false),
            (Some("live"), Some("arn:u/A"), invoke, None, false),
            (None, Some("arn:u/A"), "lambda:DeleteFunction", None, false),
            (None, None, url, Some(UrlAuth::None), true),
            (None, None, url, Some(UrlAuth::Iam), false),
        ] {
            let wish = Wish { qualifier, user, action, url_auth };
            assert_eq!(grants.iter().any(|grant| grant.allows(wish)), allowed, "{wish:?}");
        }
    }
}
