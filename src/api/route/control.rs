//! The control plane's paths: a date, a kind of thing, a name, and what of it.

use std::borrow::Cow;

use super::{decode, parameter};
use crate::function::name::Home;
use crate::http::Method;

/// What is asked for, of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Lambda's name for it.
    pub what: What,
    /// The function, layer, resource or mapping; empty if there is none in the path.
    pub name: String,
    /// What stands behind it in the path: an alias, a number, a statement.
    pub part: String,
    /// What stands behind that: a statement about a layer's version.
    pub detail: String,
    /// The query string.
    pub query: String,
}

impl Operation {
    /// What it takes to be allowed to ask for it, as policies name it.
    pub fn action(&self) -> String {
        format!("lambda:{:?}", self.what)
    }

    /// The function that it is about, if its path names one.
    pub fn function(&self, home: &Home) -> Option<String> {
        let is_of_function = PATHS
            .iter()
            .any(|(_, path, what)| *what == self.what && path.contains("/functions/{}"));
        let is_tagged =
            matches!(self.what, What::TagResource | What::UntagResource | What::ListTags);
        let named = home.parse(&self.name, None).ok();
        named.filter(|_| is_of_function || is_tagged).map(|function| function.name.to_owned())
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.query, name)
    }
}

/// Lambda's operations, by their names in its API.
#[allow(missing_docs, reason = "the names are Lambda's, and so is their documentation")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    CreateFunction,
    GetFunction,
    GetFunctionConfiguration,
    ListFunctions,
    UpdateFunctionCode,
    UpdateFunctionConfiguration,
    DeleteFunction,
    PublishVersion,
    ListVersionsByFunction,
    CreateAlias,
    GetAlias,
    UpdateAlias,
    DeleteAlias,
    ListAliases,
    PutFunctionConcurrency,
    GetFunctionConcurrency,
    DeleteFunctionConcurrency,
    PutProvisionedConcurrencyConfig,
    GetProvisionedConcurrencyConfig,
    DeleteProvisionedConcurrencyConfig,
    ListProvisionedConcurrencyConfigs,
    PutFunctionEventInvokeConfig,
    UpdateFunctionEventInvokeConfig,
    GetFunctionEventInvokeConfig,
    DeleteFunctionEventInvokeConfig,
    ListFunctionEventInvokeConfigs,
    CreateFunctionUrlConfig,
    GetFunctionUrlConfig,
    UpdateFunctionUrlConfig,
    DeleteFunctionUrlConfig,
    ListFunctionUrlConfigs,
    AddPermission,
    RemovePermission,
    GetPolicy,
    PutFunctionRecursionConfig,
    GetFunctionRecursionConfig,
    GetFunctionCodeSigningConfig,
    PutFunctionCodeSigningConfig,
    DeleteFunctionCodeSigningConfig,
    PutRuntimeManagementConfig,
    GetRuntimeManagementConfig,
    PublishLayerVersion,
    GetLayerVersion,
    GetLayerVersionByArn,
    ListLayers,
    ListLayerVersions,
    DeleteLayerVersion,
    AddLayerVersionPermission,
    GetLayerVersionPolicy,
    RemoveLayerVersionPermission,
    TagResource,
    UntagResource,
    ListTags,
    CreateEventSourceMapping,
    GetEventSourceMapping,
    UpdateEventSourceMapping,
    DeleteEventSourceMapping,
    ListEventSourceMappings,
    GetAccountSettings,
}

impl What {
    /// True for those whose body may be larger than the server wants to be.
    pub fn has_zip(self) -> bool {
        matches!(self, What::CreateFunction | What::UpdateFunctionCode | What::PublishLayerVersion)
    }
}

/// Method, path, operation. `{}` stands for the name, and the second one for what is behind it.
const PATHS: &[(Method, &str, What)] = &[
    (Method::Post, "2015-03-31/functions", What::CreateFunction),
    (Method::Get, "2015-03-31/functions", What::ListFunctions),
    (Method::Get, "2015-03-31/functions/{}", What::GetFunction),
    (Method::Delete, "2015-03-31/functions/{}", What::DeleteFunction),
    (Method::Put, "2015-03-31/functions/{}/code", What::UpdateFunctionCode),
    (Method::Get, "2015-03-31/functions/{}/configuration", What::GetFunctionConfiguration),
    (Method::Put, "2015-03-31/functions/{}/configuration", What::UpdateFunctionConfiguration),
    (Method::Post, "2015-03-31/functions/{}/versions", What::PublishVersion),
    (Method::Get, "2015-03-31/functions/{}/versions", What::ListVersionsByFunction),
    (Method::Post, "2015-03-31/functions/{}/aliases", What::CreateAlias),
    (Method::Get, "2015-03-31/functions/{}/aliases", What::ListAliases),
    (Method::Get, "2015-03-31/functions/{}/aliases/{}", What::GetAlias),
    (Method::Put, "2015-03-31/functions/{}/aliases/{}", What::UpdateAlias),
    (Method::Delete, "2015-03-31/functions/{}/aliases/{}", What::DeleteAlias),
    (Method::Post, "2015-03-31/functions/{}/policy", What::AddPermission),
    (Method::Get, "2015-03-31/functions/{}/policy", What::GetPolicy),
    (Method::Delete, "2015-03-31/functions/{}/policy/{}", What::RemovePermission),
    (Method::Put, "2017-10-31/functions/{}/concurrency", What::PutFunctionConcurrency),
    (Method::Delete, "2017-10-31/functions/{}/concurrency", What::DeleteFunctionConcurrency),
    (Method::Get, "2019-09-30/functions/{}/concurrency", What::GetFunctionConcurrency),
    (
        Method::Put,
        "2019-09-30/functions/{}/provisioned-concurrency",
        What::PutProvisionedConcurrencyConfig,
    ),
    (
        Method::Get,
        "2019-09-30/functions/{}/provisioned-concurrency",
        What::GetProvisionedConcurrencyConfig,
    ),
    (
        Method::Delete,
        "2019-09-30/functions/{}/provisioned-concurrency",
        What::DeleteProvisionedConcurrencyConfig,
    ),
    (
        Method::Put,
        "2019-09-25/functions/{}/event-invoke-config",
        What::PutFunctionEventInvokeConfig,
    ),
    (
        Method::Post,
        "2019-09-25/functions/{}/event-invoke-config",
        What::UpdateFunctionEventInvokeConfig,
    ),
    (
        Method::Get,
        "2019-09-25/functions/{}/event-invoke-config",
        What::GetFunctionEventInvokeConfig,
    ),
    (
        Method::Delete,
        "2019-09-25/functions/{}/event-invoke-config",
        What::DeleteFunctionEventInvokeConfig,
    ),
    (
        Method::Get,
        "2019-09-25/functions/{}/event-invoke-config/list",
        What::ListFunctionEventInvokeConfigs,
    ),
    (Method::Post, "2021-10-31/functions/{}/url", What::CreateFunctionUrlConfig),
    (Method::Get, "2021-10-31/functions/{}/url", What::GetFunctionUrlConfig),
    (Method::Put, "2021-10-31/functions/{}/url", What::UpdateFunctionUrlConfig),
    (Method::Delete, "2021-10-31/functions/{}/url", What::DeleteFunctionUrlConfig),
    (Method::Get, "2021-10-31/functions/{}/urls", What::ListFunctionUrlConfigs),
    (Method::Put, "2024-08-31/functions/{}/recursion-config", What::PutFunctionRecursionConfig),
    (Method::Get, "2024-08-31/functions/{}/recursion-config", What::GetFunctionRecursionConfig),
    (
        Method::Put,
        "2020-06-30/functions/{}/code-signing-config",
        What::PutFunctionCodeSigningConfig,
    ),
    (
        Method::Get,
        "2020-06-30/functions/{}/code-signing-config",
        What::GetFunctionCodeSigningConfig,
    ),
    (
        Method::Delete,
        "2020-06-30/functions/{}/code-signing-config",
        What::DeleteFunctionCodeSigningConfig,
    ),
    (
        Method::Put,
        "2021-07-20/functions/{}/runtime-management-config",
        What::PutRuntimeManagementConfig,
    ),
    (
        Method::Get,
        "2021-07-20/functions/{}/runtime-management-config",
        What::GetRuntimeManagementConfig,
    ),
    (Method::Get, "2018-10-31/layers", What::ListLayers),
    (Method::Post, "2018-10-31/layers/{}/versions", What::PublishLayerVersion),
    (Method::Get, "2018-10-31/layers/{}/versions", What::ListLayerVersions),
    (Method::Get, "2018-10-31/layers/{}/versions/{}", What::GetLayerVersion),
    (Method::Delete, "2018-10-31/layers/{}/versions/{}", What::DeleteLayerVersion),
    (Method::Post, "2018-10-31/layers/{}/versions/{}/policy", What::AddLayerVersionPermission),
    (Method::Get, "2018-10-31/layers/{}/versions/{}/policy", What::GetLayerVersionPolicy),
    (
        Method::Delete,
        "2018-10-31/layers/{}/versions/{}/policy/{}",
        What::RemoveLayerVersionPermission,
    ),
    (Method::Post, "2017-03-31/tags/{}", What::TagResource),
    (Method::Delete, "2017-03-31/tags/{}", What::UntagResource),
    (Method::Get, "2017-03-31/tags/{}", What::ListTags),
    (Method::Post, "2015-03-31/event-source-mappings", What::CreateEventSourceMapping),
    (Method::Get, "2015-03-31/event-source-mappings", What::ListEventSourceMappings),
    (Method::Get, "2015-03-31/event-source-mappings/{}", What::GetEventSourceMapping),
    (Method::Put, "2015-03-31/event-source-mappings/{}", What::UpdateEventSourceMapping),
    (Method::Delete, "2015-03-31/event-source-mappings/{}", What::DeleteEventSourceMapping),
    (Method::Get, "2016-08-19/account-settings", What::GetAccountSettings),
];

/// Understands a path without its leading slash; `None` if it is none of the control plane's.
pub fn parse(method: Method, path: &str, query: &str) -> Option<Operation> {
    let of_method = PATHS.iter().filter(|(m, _, _)| *m == method);
    let (what, holes) = of_method.into_iter().find_map(|(_, pattern, what)| {
        let holes = fill(pattern, path)?;
        Some((*what, holes))
    })?;
    let hole = |n: usize| decode(holes.get(n).unwrap_or(&"")).map(Cow::into_owned);
    // Two operations differ from their neighbours by the query alone.
    let what = if what == What::ListLayers && parameter(query, "find").is_some() {
        What::GetLayerVersionByArn
    } else if what == What::GetProvisionedConcurrencyConfig && parameter(query, "List").is_some() {
        What::ListProvisionedConcurrencyConfigs
    } else {
        what
    };
    Some(Operation {
        what,
        name: hole(0)?,
        part: hole(1)?,
        detail: hole(2)?,
        query: query.to_owned(),
    })
}

/// What stands in the holes of a pattern that fits.
fn fill<'a>(pattern: &str, path: &'a str) -> Option<heapless::Vec<&'a str, 3>> {
    let mut holes = heapless::Vec::new();
    let mut parts = path.split('/');
    for wanted in pattern.split('/') {
        let part = parts.next()?;
        match wanted {
            "{}" if !part.is_empty() => holes.push(part).ok()?,
            wanted if wanted == part => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_path_method_and_query() {
        for (method, path, query, what, name, part) in [
            (Method::Post, "2015-03-31/functions", "", What::CreateFunction, "", ""),
            (Method::Get, "2015-03-31/functions/a%3Ab", "", What::GetFunction, "a:b", ""),
            (Method::Put, "2015-03-31/functions/a/aliases/P", "", What::UpdateAlias, "a", "P"),
            (
                Method::Get,
                "2019-09-30/functions/a/provisioned-concurrency",
                "List=ALL",
                What::ListProvisionedConcurrencyConfigs,
                "a",
                "",
            ),
            (
                Method::Get,
                "2018-10-31/layers",
                "find=LayerVersion&Arn=x",
                What::GetLayerVersionByArn,
                "",
                "",
            ),
            (
                Method::Delete,
                "2018-10-31/layers/l/versions/3",
                "",
                What::DeleteLayerVersion,
                "l",
                "3",
            ),
            (Method::Delete, "2017-03-31/tags/arn%3Aaws", "", What::UntagResource, "arn:aws", ""),
        ] {
            let (name, part, query) = (name.to_owned(), part.to_owned(), query.to_owned());
            let detail = String::new();
            let expected = Operation { what, name, part, detail, query: query.clone() };
            assert_eq!(parse(method, path, &query), Some(expected), "{path}");
        }
        let path = "2018-10-31/layers/l/versions/3/policy/s";
        let parsed = parse(Method::Delete, path, "").expect("known");
        assert_eq!((&*parsed.name, &*parsed.part, &*parsed.detail), ("l", "3", "s"));
        for (method, path) in [
            (Method::Post, "2015-03-31/functions/a"),
            (Method::Get, "2014-01-01/functions/a"),
            (Method::Get, "2015-03-31/functions/a/aliases/b/c"),
            (Method::Put, "2018-10-31/layers"),
            (Method::Get, "2015-03-31/functions/%zz"),
            (Method::Get, ""),
        ] {
            assert_eq!(parse(method, path, ""), None, "{path}");
        }
    }
}
