//! Errors in the shape that Lambda's clients read: status, `x-amzn-ErrorType`, a JSON body.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use crate::function::name::BadName;
use crate::host::invocation::RequestId;
use crate::http::{Closed, Connection, Head, Method};
use crate::pool::Refusal;

/// One error, as Lambda's API answers it. On the heap: every result of the API has room for one, and
/// is handed on many times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError(Box<Details>);

/// What an error says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// HTTP status.
    pub status: u16,
    /// The exception's name.
    pub name: &'static str,
    /// One sentence.
    pub message: Cow<'static, str>,
    /// `User`, `Service`, or neither.
    kind: Option<&'static str>,
    /// Why an invocation was throttled.
    reason: Option<&'static str>,
    /// The field of the sentence is `Message`, and not `message`.
    capital: bool,
    /// Seconds after which another try makes sense.
    retry_after_s: Option<u32>,
    /// Further header lines.
    pub lines: String,
}

impl Deref for ApiError {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl ApiError {
    fn user(status: u16, name: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
        // Lambda spells this field two ways, and old clients read just one of them.
        let capital =
            ["ResourceNotFoundException", "ServiceException", "RecursiveInvocationException"]
                .contains(&name);
        ApiError(Box::new(Details {
            status,
            name,
            message: message.into(),
            kind: Some("User"),
            reason: None,
            capital,
            retry_after_s: None,
            lines: String::new(),
        }))
    }

    /// The same without a type, as Lambda answers it in a few places.
    fn untyped(mut self) -> ApiError {
        self.kind = None;
        self
    }

    fn after_a_second(mut self) -> ApiError {
        self.retry_after_s = Some(1);
        self
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(404, "ResourceNotFoundException", message)
    }

    /// 400: a parameter has no valid value.
    pub fn invalid_parameter(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(400, "InvalidParameterValueException", message)
    }

    /// The same without a type, as Lambda answers it in a few places.
    pub fn untyped_parameter(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::invalid_parameter(message).untyped()
    }

    /// 400: the body is not what it should be.
    pub fn invalid_content(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(400, "InvalidRequestContentException", message)
    }

    /// 400: a value that no parameter of that name may have.
    pub fn validation(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(400, "ValidationException", message).untyped()
    }

    /// 400: a value of another type than the parameter's.
    pub fn serialization(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(400, "SerializationException", message).untyped()
    }

    /// 412: somebody else has changed it meanwhile.
    pub fn precondition() -> ApiError {
        let message = "The Revision Id provided does not match the latest Revision Id. Call the \
                       GetFunction/GetAlias API to retrieve the latest Revision Id";
        ApiError::user(412, "PreconditionFailedException", message)
    }

    /// 412: the same of a policy, which `operation` tells.
    pub fn policy_precondition(operation: &str) -> ApiError {
        let message = format!(
            "The Revision Id provided does not match the latest Revision Id. Call the {operation} \
             API to retrieve the latest Revision Id"
        );
        ApiError::user(412, "PreconditionFailedException", message)
    }

    /// 400: a policy would be too long.
    pub fn policy_too_long(bytes: usize, most: usize) -> ApiError {
        let message = format!("The final policy size ({bytes}) is bigger than the limit ({most}).");
        ApiError::user(400, "PolicyLengthExceededException", message)
    }

    /// 404: no workers are kept ready for that.
    pub fn no_provisioned() -> ApiError {
        let message = "No Provisioned Concurrency Config found for this function";
        ApiError::user(404, "ProvisionedConcurrencyConfigNotFoundException", message)
    }

    /// 404: nobody has said how that code is to be signed.
    pub fn no_code_signing(arn: &str) -> ApiError {
        let message = format!(
            "The code signing configuration cannot be found. Check that the provided code signing \
             configuration is not deleted: {arn}. This server keeps none, and checks no signatures \
             of code."
        );
        ApiError::user(404, "CodeSigningConfigNotFoundException", message)
    }

    /// 413: the zip, or the request that it is in, is too large.
    pub fn entity_too_large(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(413, "RequestEntityTooLargeException", message)
    }

    /// 400: a function has invoked itself too often, by itself or through others.
    pub fn recursive(function: &str) -> ApiError {
        let message = format!(
            "Lambda has detected your function {function} being invoked in a recursive loop with \
             other AWS resources and stopped your function's invocation."
        );
        ApiError::user(400, "RecursiveInvocationException", message)
    }

    /// 409: it is not in a state for that.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(409, "ResourceConflictException", message)
    }

    /// 413: the payload is too large.
    pub fn too_large(limit: usize) -> ApiError {
        let message =
            format!("Request must be smaller than {limit} bytes for the InvokeFunction operation");
        ApiError::user(413, "RequestTooLargeException", message)
    }

    /// 403: who calls is not known, or may not do this.
    pub fn forbidden(name: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(403, name, message).untyped()
    }

    /// 403: who calls a function URL shows no credentials that it takes.
    pub fn forbidden_url() -> ApiError {
        let message = "Forbidden. For troubleshooting Function URL authorization issues, see: \
                       https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";
        let mut error = ApiError::forbidden("AccessDeniedException", message);
        error.capital = true;
        error
    }

    /// 400: a signature, or what belongs to it, is not there or not readable.
    pub fn incomplete_signature(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::user(400, "IncompleteSignatureException", message).untyped()
    }

    /// 404: no operation has this path and method.
    pub fn unknown_operation() -> ApiError {
        ApiError::user(404, "UnknownOperationException", "").untyped()
    }

    /// 5xx: the server's own fault.
    pub fn service(status: u16, message: impl Into<Cow<'static, str>>) -> ApiError {
        let mut error = ApiError::user(status, "ServiceException", message);
        error.kind = Some("Service");
        error
    }

    /// 503: the server is going away.
    pub fn draining() -> ApiError {
        ApiError::service(503, "The server is stopping.").after_a_second()
    }

    /// 503: another server takes over, and will take changes.
    pub fn handing_over() -> ApiError {
        let message = "The server hands over to its successor: try again.";
        ApiError::service(503, message).after_a_second()
    }

    /// What a caller hears of an invocation that was not taken.
    pub fn refused(refusal: Refusal) -> ApiError {
        let reason = match refusal {
            Refusal::Draining => return ApiError::draining(),
            Refusal::NoProcess => {
                return ApiError::service(500, "No process could be started for this function.");
            }
            Refusal::Reserved => "ReservedFunctionConcurrentInvocationLimitExceeded",
            Refusal::Unreserved | Refusal::LineFull => "ConcurrentInvocationLimitExceeded",
        };
        let mut error = ApiError::user(429, "TooManyRequestsException", "Rate Exceeded.");
        error.reason = Some(reason);
        error.after_a_second()
    }

    /// What a caller hears of a text that names no function here.
    pub fn bad_name(text: &str, bad: BadName, region: &str) -> ApiError {
        match bad {
            BadName::Malformed => ApiError::validation(format!(
                "1 validation error detected: Value '{text}' at 'functionName' failed to \
                         satisfy constraint: Member must satisfy regular expression pattern: \
                         (arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{{2}}(-gov)?-[a-z]+-\\d{{1}}:)?\
                         (\\d{{12}}:)?(function:)?([a-zA-Z0-9-_]+)(:(\\$LATEST|[a-zA-Z0-9-_]+))?"
            )),
            BadName::TooLong => ApiError::invalid_parameter(format!(
                "1 validation error detected: Value '{text}' at 'functionName' failed to satisfy \
                 constraint: Member must have length less than or equal to 64"
            )),
            BadName::OtherRegion(other) => ApiError::not_found(format!(
                "Functions from '{other}' are not reachable in this region ('{region}')"
            )),
            BadName::OtherAccount => ApiError::not_found(format!("Function not found: {text}")),
            BadName::OtherQualifier => ApiError::invalid_parameter(
                "The derived qualifier from the function name does not match the specified \
                 qualifier.",
            ),
        }
    }

    /// The body.
    fn json(&self) -> Vec<u8> {
        // What stands around the sentence, of the longest.
        const AROUND: usize = 128;
        let mut body = Vec::with_capacity(AROUND + self.message.len());
        body.push(b'{');
        for (name, value) in [("\"Reason\":\"", self.reason), ("\"Type\":\"", self.kind)] {
            if let Some(value) = value {
                body.extend_from_slice(name.as_bytes());
                body.extend_from_slice(value.as_bytes());
                body.extend_from_slice(b"\",");
            }
        }
        body.extend_from_slice(if self.capital { b"\"Message\":" } else { b"\"message\":" });
        serde_json::to_writer(&mut body, &*self.message).expect("text, to memory");
        body.push(b'}');
        body
    }

    /// Sends the error as the reply to a request, which is called `id` in it.
    pub async fn send(
        &self,
        connection: &Connection,
        request: &Head,
        id: RequestId,
        keeps: bool,
    ) -> Result<(), Closed> {
        let body = self.json();
        let mut head = connection
            .reply(self.status)
            .json()
            .field("x-amzn-RequestId", id)
            .field("x-amzn-ErrorType", self.name);
        if let Some(seconds) = self.retry_after_s {
            head = head.field("Retry-After", u64::from(seconds));
        }
        let head = head.connection(request, keeps).lines(&self.lines).body(body.len());
        let body = if request.method == Method::Head { b"" } else { &body[..] };
        connection.send(head, body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_as_recorded_from_lambda() {
        for (error, body) in [
            (
                ApiError::refused(Refusal::Reserved),
                r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#,
            ),
            (ApiError::not_found("x"), r#"{"Message":"x","Type":"User"}"#),
            (ApiError::invalid_content("x\n\""), r#"{"Type":"User","message":"x\n\""}"#),
            (ApiError::service(500, "x"), r#"{"Message":"x","Type":"Service"}"#),
        ] {
            let json: serde_json::Value = serde_json::from_slice(&error.json()).expect("JSON");
            assert_eq!(json, serde_json::from_str::<serde_json::Value>(body).expect("JSON"));
        }
    }
}
