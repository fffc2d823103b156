fn main() -> std::process::ExitCode {
    functions::lost_password()
}
