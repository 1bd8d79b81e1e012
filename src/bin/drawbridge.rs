//! `drawbridge`: the operator's command.

use std::process::ExitCode;

use clap::Parser;
use drawbridge::command::cli::{Cli, Command};
use drawbridge::command::report_error;
use drawbridge::dev;
use drawbridge::exit::Exit;
use drawbridge::interrupt::Interrupt;
use drawbridge::progress::Progress;
#[cfg(target_os = "linux")]
use drawbridge::rehearsal;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("drawbridge: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let code = runtime.block_on(run(cli.command));
    // A thread that waits for input that never comes must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run(command: Command) -> u8 {
    let progress = match command {
        // These show how far they are by themselves, or are done at once.
        Command::Dev(_) | Command::Completions(_) | Command::Man(_) => Progress::quiet(),
        #[cfg(target_os = "linux")]
        Command::Rehearse(_) => Progress::quiet(),
        _ => Progress::stderr(),
    };
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            return report_error(&anyhow::Error::new(error), &progress, &Interrupt::never()) as u8;
        }
    };
    let ended = match command {
        Command::Up(args) => args.run(&progress, &interrupt).await,
        Command::Open(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::Doctor(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::Status(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::Nat(command) => command.run(&progress, &interrupt).await,
        Command::Image(command) => command.run(&progress, &interrupt).await,
        Command::Audit(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::Cost(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::Deploy(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::SshConfig(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::RotatePassword(args) => {
            args.run(&progress, &interrupt).await.map(|exit| exit as u8)
        }
        Command::Exec(args) => args.run(&progress, &interrupt).await,
        Command::Ssh(args) => args.run(&progress, &interrupt).await,
        Command::Logs(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        Command::Psql(args) => args.run(&progress, &interrupt).await,
        Command::Tunnel(args) => args.run(&progress, &interrupt).await.map(|exit| exit as u8),
        #[cfg(target_os = "linux")]
        Command::Rehearse(args) => rehearsal::run(args).await,
        #[cfg(not(target_os = "linux"))]
        Command::Rehearse(args) => Ok(args.run() as u8),
        Command::Completions(args) => {
            args.run();
            Ok(Exit::Done as u8)
        }
        Command::Man(args) => args.run().map(|exit| exit as u8),
        Command::Dev(args) => dev::run(args).await.map(|()| Exit::Done as u8),
    };
    progress.clear();
    ended.unwrap_or_else(|error| report_error(&error, &progress, &interrupt) as u8)
}
