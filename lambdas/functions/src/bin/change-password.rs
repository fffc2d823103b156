fn main() -> std::process::ExitCode {
    functions::change_password()
}
