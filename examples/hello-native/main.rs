//! A native handler: one function. It keeps what it likes between invocations.

fn main() -> std::io::Result<()> {
    let mut count = 0u64;
    hob::handler::run(|event, context| {
        count += 1;
        // Lines on standard output and standard error go to the log.
        eprintln!("invocation {}", context.request_id);
        let event = std::str::from_utf8(event)?;
        Ok(format!("{{\"hello\":\"native\",\"count\":{count},\"event\":{event}}}\n").into_bytes())
    })
}
