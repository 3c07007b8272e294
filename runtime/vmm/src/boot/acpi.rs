//! ACPI tables: how a Linux guest finds its devices.
//!
//! Hardware-reduced ACPI: there is no timer, controller or clock of an old PC that a kernel would
//! look for, and none has to be saved. What an interrupt of the generation id means is said by a
//! generic event device. Debian's kernels take no virtio device from the command line, only from here.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use crate::device::virtio::transport;
use crate::device::{power, serial};

const MAKER: [u8; 6] = *b"HEARTH";
const TABLE: [u8; 8] = *b"MICROVM ";
const REVISION: u32 = 1;

/// Where every PC has its interrupt controllers, and KVM's are.
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;

/// No VGA, no message-signalled interrupts, no clock in CMOS.
const WITHOUT: u16 = 1 << 2 | 1 << 3 | 1 << 5;

/// A virtio device: its registers and its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the first register.
    pub address: u32,
    /// Edge-triggered, of the I/O APIC.
    pub interrupt: u32,
}

/// What the tables tell of, beside what every guest has.
#[derive(Clone, Debug)]
pub struct Described {
    /// In the order in which a guest numbers them.
    pub virtio: Vec<Place>,
    /// Where the generation id is.
    pub generation: u64,
    /// The interrupt that tells of a new one.
    pub generation_interrupt: u32,
}

/// The tables, for memory that begins at `address`. The root pointer comes first.
#[must_use]
pub fn tables(address: u64, described: &Described) -> Vec<u8> {
    let mut tables = vec![0; Rsdp::len()];
    let mut put = |table: &dyn Aml| {
        tables.resize(tables.len().next_multiple_of(16), 0);
        let at = address + tables.len() as u64;
        table.to_aml_bytes(&mut tables);
        at
    };
    let dsdt = put(&dsdt(described));
    let fadt = put(&fadt(dsdt));
    let madt = put(&madt());
    let mut root = XSDT::new(MAKER, TABLE, REVISION);
    root.add_entry(fadt);
    root.add_entry(madt);
    let root = put(&root);
    let mut pointer = Vec::new();
    Rsdp::new(MAKER, root).to_aml_bytes(&mut pointer);
    tables.splice(..pointer.len(), pointer);
    tables
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port = |port: u16| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            port.into(),
        )
    };
    let mut fadt = FADTBuilder::new(MAKER, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = WITHOUT.into();
    fadt.reset_reg = port(power::RESET);
    fadt.reset_value = 1;
    fadt.sleep_control_reg = port(power::SLEEP);
    fadt.sleep_status_reg = port(power::STATUS);
    fadt.finalize()
}

fn madt() -> MADT {
    let local = LocalInterruptController::Address(LOCAL_APIC);
    let mut madt = MADT::new(MAKER, TABLE, REVISION, local);
    madt.add_structure(ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled));
    madt.add_structure(IoApic::new(0, IO_APIC, 0));
    madt
}

fn dsdt(described: &Described) -> Sdt {
    let mut body = Vec::new();
    console(&mut body);
    for (nr, place) in described.virtio.iter().enumerate() {
        virtio(nr, *place, &mut body);
    }
    generation(described, &mut body);
    let scope = Scope::raw("_SB_".into(), body);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, MAKER, TABLE, REVISION);
    dsdt.append_slice(&scope);
    let mut off = Vec::new();
    let kind = Package::new(vec![&power::OFF]);
    Name::new("_S5_".into(), &kind).to_aml_bytes(&mut off);
    dsdt.append_slice(&off);
    dsdt
}

fn edge(interrupt: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, interrupt)
}

fn console(body: &mut Vec<u8>) {
    let registers = u8::try_from(serial::REGISTERS).unwrap_or(u8::MAX);
    let ports = IO::new(serial::PORT, serial::PORT, 1, registers);
    let interrupt = edge(serial::IRQ);
    Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&ports, &interrupt]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

fn virtio(nr: usize, place: Place, body: &mut Vec<u8>) {
    // Not more than fit between the interrupts of the I/O APIC.
    let name = format!("VR{nr:02}");
    let length = u32::try_from(transport::LENGTH).unwrap_or(u32::MAX);
    let registers = Memory32Fixed::new(true, place.address, length);
    let interrupt = edge(place.interrupt);
    Device::new(
        Path::from(name.as_str()),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &nr),
            &Name::new("_CCA".into(), &1_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&registers, &interrupt]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

fn generation(described: &Described, body: &mut Vec<u8>) {
    let low = described.generation & u64::from(u32::MAX);
    let high = described.generation >> 32;
    let address = Package::new(vec![&low, &high]);
    Device::new(
        "VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"HRTH0001"),
            &Name::new("_CID".into(), &"VM_Gen_Counter"),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &Name::new("ADDR".into(), &address),
        ],
    )
    .to_aml_bytes(body);
    let interrupt = edge(described.generation_interrupt);
    // The only event: the id has changed.
    let id = Path::new("\\_SB_.VGEN");
    let changed = Notify::new(&id, &0x80_u8);
    Device::new(
        "EVNT".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt])),
            &Method::new("_EVT".into(), 1, true, vec![&changed]),
        ],
    )
    .to_aml_bytes(body);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const AT: u64 = 0xe_0000;

    fn made() -> Vec<u8> {
        let place = |nr: u32| Place {
            address: 0xd000_0000 + nr * 0x1000,
            interrupt: 16 + nr,
        };
        let described = Described {
            virtio: (0..4).map(place).collect(),
            generation: 0x1234_5678_9abc,
            generation_interrupt: 9,
        };
        tables(AT, &described)
    }

    fn number(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let from = usize::try_from(address - AT).unwrap();
        let length = u32::from_le_bytes(bytes[from + 4..from + 8].try_into().unwrap());
        &bytes[from..from + length as usize]
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_found_from_the_root_and_sums_to_nothing() {
        let bytes = made();
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let root = table(&bytes, number(&bytes, 24));
        assert_eq!((&root[..4], sum(root)), (&b"XSDT"[..], 0));
        let fadt = table(&bytes, number(root, 36));
        assert_eq!((&fadt[..4], sum(fadt)), (&b"FACP"[..], 0));
        let madt = table(&bytes, number(root, 44));
        assert_eq!((&madt[..4], sum(madt)), (&b"APIC"[..], 0));
        let dsdt = table(&bytes, number(fadt, 140));
        assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
        let devices = dsdt.windows(8).filter(|part| part == b"LNRO0005").count();
        assert_eq!(devices, 4);
        assert!(
            dsdt.windows(4)
                .any(|part| part == 0xd000_3000_u32.to_le_bytes())
        );
    }
}
