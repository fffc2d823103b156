//! A function that does what its event says, for the tests of the local cloud.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if std::env::var("PROBE_INIT").as_deref() == Ok("exit") {
        std::process::exit(4);
    }
    lambda_runtime::run(service_fn(probe)).await
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what a function prints is what is tested")]
async fn probe(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (event, context) = event.into_parts();
    let number = |name: &str| event[name].as_u64().unwrap_or_default();
    match event["do"].as_str().unwrap_or_default() {
        "pid" => Ok(std::process::id().into()),
        "error" => Err("as asked".into()),
        "panic" => panic!("as asked"),
        "exit" => std::process::exit(i32::try_from(number("code"))?),
        "sleep" => {
            tokio::time::sleep(std::time::Duration::from_millis(number("ms"))).await;
            Ok(std::process::id().into())
        }
        // As JSON it is two quotes longer.
        "big" => Ok("x".repeat(usize::try_from(number("bytes"))?).into()),
        "print" => {
            for (at, line) in event["lines"].as_array().into_iter().flatten().enumerate() {
                let line = line.as_str().unwrap_or_default();
                if at % 2 == 0 {
                    println!("{line}");
                } else {
                    eprintln!("{line}");
                }
            }
            Ok(Value::Null)
        }
        "env" => Ok(std::env::vars().map(|(name, value)| (name, Value::from(value))).collect()),
        "context" => Ok(json!({
            "arn": context.invoked_function_arn,
            "identity": context.identity,
            "custom": context.client_context.map(|context| context.custom),
        })),
        "touch" => {
            std::fs::write(event["file"].as_str().unwrap_or_default(), "")?;
            Ok(Value::Null)
        }
        _ => Ok(event),
    }
}
