//! Every format: its oddest lines, and what it makes of them.

mod azure;
mod burstgpt;
mod chats;
mod compression;
mod dynamo;
mod fuzz;
mod gmi;
mod kavier;
mod llmservingsim;
mod marconi;
mod mooncake;
mod native;
mod overlays;
mod parquet;
mod qwen_bailian;
mod ragpulse;
mod support;
mod vidur;
mod weka;
