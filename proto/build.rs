//! Generates the wire's messages and services from `divvy/v1/*.proto`, without a system `protoc`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 7] = [
    "divvy/v1/resources.proto",
    "divvy/v1/reservation.proto",
    "divvy/v1/demand.proto",
    "divvy/v1/task.proto",
    "divvy/v1/scheduler.proto",
    "divvy/v1/agent.proto",
    "divvy/v1/operator.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=divvy");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("divvy.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".") // ordered, so that the same message is always the same bytes
        .build_transport(false) // `AgentClient::connect` is the rpc; a client is made with `new(channel)`
        .compile_fds(descriptors)?;
    Ok(())
}
