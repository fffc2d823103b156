fn main() -> std::process::ExitCode {
    functions::create_user()
}
