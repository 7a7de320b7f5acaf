//! One OMEMO 2 device that is driven by lines of JSON on standard input and answers each with one on standard output.
//!
//! Made for checking this crate against other implementations (`tests/interop`); also a small example of its use.
//! Every command is `{"do": NAME, …}`, every answer `{"ok": VALUE}` or `{"error": NAME}`.
#![allow(clippy::print_stdout, reason = "the answers")]

use std::{error::Error, io::stdin};

use multiend_crypto::omemo2::{Address, Bundle, DecryptError, Device, DeviceId, EncryptedMessage};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut device = None;
    for line in stdin().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let answer = match run(&mut device, &command) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
    }
    Ok(())
}

fn run(device: &mut Option<Device>, command: &Value) -> Result<Value, Box<dyn Error>> {
    let text = |name: &str| command.get(name).and_then(Value::as_str).ok_or(format!("{name} is missing"));
    let number = |name: &str| {
        let number = command.get(name).and_then(Value::as_u64).ok_or(format!("{name} is missing"))?;
        u32::try_from(number).map_err(|error| error.to_string())
    };
    if text("do")? == "new" {
        *device = Some(Device::generate(text("jid")?, DeviceId::new(number("id")?)?, 0)?);
        return Ok(Value::Null);
    }
    let device = device.as_mut().ok_or("there is no device yet")?;
    match text("do")? {
        "bundle" => Ok(json!(device.bundle().to_xml())),
        "state" => Ok(json!(String::from_utf8(device.to_state()?.to_vec())?)),
        "fingerprint" => Ok(json!(device.identity().fingerprint())),
        "replenish" => Ok(json!(device.replenish()?)),
        "restart" => {
            *device = Device::from_state(&device.to_state()?)?;
            Ok(Value::Null)
        }
        "start" => {
            let bundle = Bundle::from_xml(text("bundle")?)?;
            device.start_session(&Address::new(text("jid")?, number("id")?)?, &bundle)?;
            Ok(Value::Null)
        }
        "encrypt" => {
            let peer = Address::new(text("jid")?, number("id")?)?;
            Ok(json!(device.encrypt(text("text")?.as_bytes(), &[peer])?.to_xml()))
        }
        "empty" => {
            let peer = Address::new(text("jid")?, number("id")?)?;
            Ok(json!(device.encrypt_empty(&peer)?.to_xml()))
        }
        "decrypt" => match device.decrypt(text("from")?, &EncryptedMessage::from_xml(text("message")?)?) {
            Ok(decrypted) => {
                let plaintext = decrypted.plaintext.as_ref().map(|plaintext| String::from_utf8_lossy(plaintext));
                Ok(json!({ "text": plaintext, "reply_due": decrypted.reply_due, "new": decrypted.new_session }))
            }
            Err(DecryptError::Duplicate) => Err("duplicate".into()),
            Err(error) => Err(error.into()),
        },
        other => Err(format!("unknown command {other}").into()),
    }
}
