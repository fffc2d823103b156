fn main() -> std::process::ExitCode {
    functions::verify_user()
}
