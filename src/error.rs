//! Errors that end the program: one line that says what was being done, to what, and why.

use std::fmt;

/// Exit codes, the same for every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// What was asked for was done.
    Ok = 0,
    /// What was asked for failed.
    Failed = 1,
    /// Wrong use, or bad configuration.
    Usage = 2,
    /// The server cannot be reached, or refused.
    Refused = 3,
}

/// An error that ends the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The exit code.
    pub code: ExitCode,
    /// One line, or one for each complaint.
    pub message: String,
}

impl Error {
    /// What was asked for failed.
    pub fn failed(message: impl Into<String>) -> Error {
        Error { code: ExitCode::Failed, message: message.into() }
    }

    /// Wrong use, or bad configuration.
    pub fn usage(message: impl Into<String>) -> Error {
        Error { code: ExitCode::Usage, message: message.into() }
    }

    /// The server cannot be reached, or refused.
    pub fn refused(message: impl Into<String>) -> Error {
        Error { code: ExitCode::Refused, message: message.into() }
    }

    /// `DOING SUBJECT: CAUSE`
    pub fn doing(doing: &str, subject: impl fmt::Display, cause: impl fmt::Display) -> Error {
        Error::failed(format!("{doing} {subject}: {cause}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
