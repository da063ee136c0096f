//! The command line that a start would use.

use std::io::Read;

use uuid::Uuid;

use crate::host::dirs::StateDir;
use crate::host::files;
use crate::host::raw_images::RawImages;
use crate::qemu::{self, Channels, GuestMemory};
use crate::spec::Request;

use super::description::{SpecParts, spec};
use super::plan::Plan;
use super::{Made, addresses, disks, metadata_file, naming, store_environment};
use crate::vm::start_error::StartError;
use crate::vm::state::images::Images;

/// The QEMU command line for a request, quoted for a shell; makes nothing.
pub fn dry_run(request: &Request) -> Result<Vec<u8>, StartError> {
    let plan = Plan::look(request)?;
    let plan = match plan.packed.as_ref().map(|packed| packed.existing(&plan.state)).transpose()? {
        Some(Some(image)) => plan.with_image(image),
        Some(None) => {
            return Err(StartError::usage("the image is not unpacked yet, and a dry run makes nothing"));
        }
        None => plan,
    };
    let folder = plan.state.clone();
    let plan = plan.with_parts_in(&folder);
    let name = naming::wanted(request);
    let images = Images::dry(RawImages::new(store_environment(request)));
    let mac = files::open(&plan.state.join("mac-addr")).ok().and_then(|(file, _)| {
        let text = std::io::read_to_string(file.take(64)).ok()?;
        text.trim().parse().ok()
    });
    let mut scratch = Made::default();
    let disks = disks::all(request, &plan, &images, &mut scratch)?;
    let firmware = plan.firmware.clone().map(|found| found.in_folder(&plan.state));
    let metadata = request.data.as_ref().map(|_| plan.state.join(metadata_file(request)));
    let uuid = request.uuid.or_else(|| StateDir::uuid_at(&plan.state)).unwrap_or_else(Uuid::new_v4);
    let mac = mac.unwrap_or_else(addresses::random);
    let nics = plan.cards.dry(&plan.state);
    let parts = SpecParts { name, uuid, mac, nics, disks: disks.disks, firmware, metadata };
    let spec = spec(request, &plan, parts)?;
    let shares = (0..spec.shares.len()).map(|number| 20 + i32::try_from(number).unwrap_or(0)).collect();
    let user_qmp = request.qmp.as_ref().map(|_| 13);
    let memory = spec.forkable.then_some(GuestMemory { file: 12, shared: true });
    let channels = Channels { qmp: 10, agent: 11, user_qmp, shares, memory };
    Ok(qemu::quote::shell(plan.qemu.as_os_str(), &qemu::command_line(&spec, &plan.host, &channels)))
}
