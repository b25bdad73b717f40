//! The layers of a function: found by their names, merged for it, and kept as long as it has them.

use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::find;
use crate::api::Api;
use crate::api::control::change;
use crate::api::control::fields::{Fields, unfit};
use crate::api::control::upload::refused;
use crate::api::error::ApiError;
use crate::function::layer::is_folder;
use crate::function::name::{BadLayer, Home, LayerName, layer_version};
use crate::function::record::{CodeRecord, LayerUse, VersionRecord};
use crate::function::store::Refused;
use crate::host::load::parse_config;
use crate::limits::LAYERS_MAX;

const PATTERN: &str = "satisfy constraint: [Member must have length less than or equal to 2048, \
                       Member must have length greater than or equal to 1, Member must satisfy \
                       regular expression pattern: arn:[a-zA-Z0-9-]+:lambda:[a-zA-Z0-9-]+:\\d{12}:\
                       layer:[a-zA-Z0-9-_]+:[0-9]+]";

/// The version with the layers that a request names, or else with those that it has: a deleted
/// layer version goes on working where it is used, since what was merged stays. `before` is the
/// version that this one replaces.
pub async fn put_in(
    api: &Rc<Api>,
    name: &str,
    fields: &Fields,
    mut version: VersionRecord,
    before: Option<&VersionRecord>,
) -> Result<VersionRecord, ApiError> {
    let Some(configuration) = &mut version.configuration else {
        version.opt = of_toml(api, name, &version.code, before).await?;
        return Ok(version);
    };
    if let Some(arns) = fields.texts("Layers")? {
        let (uses, digests) = resolve(api, &arns)?;
        configuration.layers = uses;
        version.opt = merge(api, &version.code, &digests).await?;
    } else if let Some(opt) = &version.opt {
        check_size(api, &version.code, opt).await?;
    }
    Ok(version)
}

/// What `function.toml` names, merged. What else is wrong with that, its loading tells.
async fn of_toml(
    api: &Rc<Api>,
    name: &str,
    code: &CodeRecord,
    before: Option<&VersionRecord>,
) -> Result<Option<String>, ApiError> {
    let file = format!("{name}/function.toml");
    let layers = |code: &CodeRecord| {
        let config = parse_config(&file, &api.store.code(&code.digest)).ok()?;
        Some(config.layers).filter(|layers| !layers.iter().any(|layer| is_folder(layer)))
    };
    let Some(names) = layers(code) else { return Ok(None) };
    let before = before.filter(|before| before.configuration.is_none());
    if let Some(before) = before
        && let Some(opt) = &before.opt
        && layers(&before.code).as_ref() == Some(&names)
    {
        check_size(api, code, opt).await?;
        return Ok(Some(opt.clone()));
    }
    let mut digests = Vec::new();
    for text in &names {
        let (layer, number) = layer_version(text).unwrap_or((text, 0));
        let Some(version) = find(api, layer, number)? else {
            let allowed = api.store.newest_layers(layer);
            let allowed = allowed.map_err(|error| change::disk(layer, &error))?.join(", ");
            return Err(ApiError::invalid_parameter(format!(
                "{file}: layers: {text} is not published, allowed: {allowed}"
            )));
        };
        digests.push(version.code.digest);
    }
    merge(api, code, &digests).await
}

/// The layer versions that a request names, in order, and the digests of their files.
fn resolve(api: &Api, arns: &[String]) -> Result<(Vec<LayerUse>, Vec<String>), ApiError> {
    if arns.len() > LAYERS_MAX {
        let message = format!("Cannot reference more than {LAYERS_MAX} layers.");
        return Err(ApiError::invalid_parameter(message));
    }
    let home = &api.host.facts.home;
    let mut names: Vec<(&str, u32)> = Vec::new();
    for arn in arns {
        let (name, number) = layer_of(home, arn)?;
        if let Some((_, other)) = names.iter().find(|(other, _)| *other == name) {
            let other = home.layer_arn(name, Some(&other.to_string()));
            return Err(ApiError::invalid_parameter(format!(
                "Two different versions of the same layer are not allowed to be referenced in the \
                 same function. {other} and {arn} are versions of the same layer."
            )));
        }
        names.push((name, number));
    }
    let (mut uses, mut digests) = (Vec::new(), Vec::new());
    for (arn, (name, number)) in arns.iter().zip(names) {
        let version = find(api, name, number)?.ok_or_else(|| {
            ApiError::invalid_parameter(format!("Layer version {arn} does not exist."))
        })?;
        uses.push(LayerUse { arn: arn.clone(), code_size: version.code.size });
        digests.push(version.code.digest);
    }
    Ok((uses, digests))
}

/// The layer version that an ARN names, if it is one of this server.
fn layer_of<'a>(home: &Home, arn: &'a str) -> Result<(&'a str, u32), ApiError> {
    match home.parse_layer(arn) {
        Ok(LayerName { name, version: Some(number) }) => Ok((name, number)),
        Ok(_) | Err(BadLayer::Malformed) => {
            Err(unfit("layers", format!("[{arn}]"), format_args!("{PATTERN}")))
        }
        Err(BadLayer::OtherRegion) => Err(ApiError::invalid_parameter(format!(
            "Layers are not in the same region as the function. Layers are expected to be in \
             region {}.",
            home.region
        ))),
        Err(BadLayer::OtherAccount) => {
            let user = format!("arn:aws:iam::{}:root", home.account);
            Err(ApiError::forbidden(
                "AccessDeniedException",
                format!(
                    "User: {user} is not authorized to perform: lambda:GetLayerVersion on \
                     resource: {arn} because no resource-based policy allows the \
                     lambda:GetLayerVersion action"
                ),
            ))
        }
    }
}

/// The digest of layers with these, merged for this code; none if there are none.
async fn merge(
    api: &Rc<Api>,
    code: &CodeRecord,
    layers: &[String],
) -> Result<Option<String>, ApiError> {
    if layers.is_empty() {
        return Ok(None);
    }
    // If this comes to nothing, nobody will name it.
    api.host.has_unused();
    let layers = layers.iter().map(String::as_str);
    let arguments: Vec<&str> = [&*code.digest].into_iter().chain(layers).collect();
    helped(api, "merge", &arguments).await.map(Some)
}

/// Checks that code fits beside layers that are merged already.
async fn check_size(api: &Rc<Api>, code: &CodeRecord, merged: &str) -> Result<(), ApiError> {
    helped(api, "fit", &[&code.digest, merged]).await
}

/// What a helper says that reads the store.
async fn helped<T: DeserializeOwned>(
    api: &Rc<Api>,
    verb: &str,
    arguments: &[&str],
) -> Result<T, ApiError> {
    let data = api.store.data().display().to_string();
    let printed = api.host.helper(&[&[verb, &data], arguments].concat()).await;
    let printed = printed.map_err(|error| ApiError::service(500, error))?;
    let said: Result<Result<T, Refused>, _> = serde_json::from_str(&printed);
    said.map_err(|error| ApiError::service(500, format!("helper {verb}: {error}")))?
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_elsewhere_are_refused_in_lambdas_words() {
        let home = Home { region: "us-east-1".into(), account: "000000000000".into() };
        let arn = "arn:aws:lambda:us-east-1:000000000000:layer:deps:3";
        assert_eq!(layer_of(&home, arn), Ok(("deps", 3)));
        for (arn, name, part) in [
            (&arn[..arn.len() - 2], "ValidationException", "at 'layers' failed to satisfy"),
            ("deps:3", "ValidationException", "Value '[deps:3]' at 'layers'"),
            (
                &arn.replace("us-east-1", "eu-west-1"),
                "InvalidParameterValueException",
                "expected to be in region us-east-1.",
            ),
            (
                &arn.replace("000000000000", "123456789012"),
                "AccessDeniedException",
                "on resource: arn:aws:lambda:us-east-1:123456789012:layer:deps:3 because",
            ),
        ] {
            let refused = layer_of(&home, arn).expect_err(arn);
            assert_eq!(refused.name, name, "{arn}");
            assert!(refused.message.contains(part), "{}", refused.message);
        }
    }
}
