fn main() -> std::process::ExitCode {
    functions::login()
}
