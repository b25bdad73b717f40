//! The same work as a native handler, with the SDK.

fn main() -> std::io::Result<()> {
    hob::handler::run(|event, _| {
        let text = std::str::from_utf8(event)?;
        let number = |key: &str| {
            let digits: String =
                text.split_once(key)?.1.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        if text.contains("\"do\":\"crash\"") {
            std::process::abort();
        }
        if text.contains("\"do\":\"hang\"") {
            loop {
                std::thread::park();
            }
        }
        if let Some(ms) = number("\"ms\":") {
            std::thread::sleep(std::time::Duration::from_millis(ms));
        }
        let end = event.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
        Ok([&event[..end], b",\"added\":1}"].concat())
    })
}
