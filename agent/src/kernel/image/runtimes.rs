//! The runtimes that are known, the files they live in, and their hand-over to user code.

/// What runs the user's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// A dynamic program started by the C library: C, C++, Rust and others.
    Libc,
    /// A static program.
    Static,
    /// Go, static or dynamic.
    Go,
    /// `CPython`, in the executable or in `libpython`.
    CPython,
    /// Node.js, in the executable or in `libnode`.
    Node,
    /// `HotSpot` under the `java` launcher.
    Jvm,
}

/// A symbol, wholly or by its beginning (a mangled name carries its parameters).
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    Is(&'static str),
    Starts(&'static str),
}

impl Name {
    /// What every symbol that fits begins with.
    pub(super) fn beginning(self) -> &'static str {
        let (Self::Is(name) | Self::Starts(name)) = self;
        name
    }

    pub(super) fn fits(self, symbol: &str) -> bool {
        match self {
            Self::Is(name) => symbol == name,
            // The compiler splits rare paths off into parts of their own.
            Self::Starts(name) => symbol.starts_with(name) && !symbol.contains(".cold"),
        }
    }
}

/// Where a runtime's functions are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home {
    pub(super) runtime: Runtime,
    /// File names of an executable that holds the runtime itself, by beginning.
    pub(super) executables: &'static [&'static str],
    /// File names of needed libraries that hold it, by beginning.
    pub(super) libraries: &'static [&'static str],
    /// Needed library (by beginning) beside which the runtime is loaded later, and the paths
    /// to it from that library's directory.
    pub(super) beside: Option<(&'static str, &'static [&'static str])>,
    /// Ways into user code; of each, the first symbol that is there.
    pub(super) ways: &'static [Way],
}

/// One way from a runtime into user code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) symbols: &'static [Name],
    /// Taken on the way to the others, too.
    pub(super) provisional: bool,
}

/// Every runtime that has a hand-over of its own.
pub(super) const HOMES: &[Home] = &[
    Home {
        runtime: Runtime::CPython,
        executables: &["python"],
        libraries: &["libpython2", "libpython3"],
        beside: None,
        ways: &[
            // A file: up to 3.9, then from 3.10.
            Way {
                symbols: &[
                    Name::Is("_PyRun_SimpleFileObject"),
                    Name::Is("PyRun_SimpleFileExFlags"),
                ],
                provisional: false,
            },
            // `-c`: from 3.13, and before.
            Way {
                symbols: &[
                    Name::Is("_PyRun_SimpleStringFlagsWithName"),
                    Name::Is("PyRun_SimpleStringFlags"),
                ],
                provisional: false,
            },
            // `-m`, from 3.7, where the file has its symbols.
            Way {
                symbols: &[Name::Is("pymain_run_module")],
                provisional: false,
            },
            // `-m` has no exported function of its own: `runpy` is found and run from here (3.8
            // on). On the way to a file this is 0.2 ms early with a warm page cache.
            Way {
                symbols: &[Name::Is("Py_RunMain")],
                provisional: true,
            },
        ],
    },
    Home {
        runtime: Runtime::Node,
        executables: &["node"],
        libraries: &["libnode"],
        beside: None,
        ways: &[Way {
            symbols: &[Name::Starts("_ZN4node14StartExecution")],
            provisional: false,
        }],
    },
    Home {
        runtime: Runtime::Jvm,
        executables: &[],
        libraries: &["libjvm.so"],
        beside: Some((
            "libjli.so",
            &[
                "server/libjvm.so",
                "../server/libjvm.so",
                "client/libjvm.so",
            ],
        )),
        ways: &[Way {
            symbols: &[
                // The launcher's call of `main`, a local symbol: tens of us before user code.
                Name::Is("jni_CallStaticVoidMethod"),
                // The launcher's check that the class has a `main`: 0.3 to 0.6 ms before.
                Name::Is("JVM_GetClassDeclaredMethods"),
            ],
            provisional: false,
        }],
    },
];

/// The C library's start function and the files that have it, by beginning.
pub(super) const LIBC_START: &str = "__libc_start_main";
/// See [`LIBC_START`]; musl's dynamic linker is its C library.
pub(super) const LIBC_FILES: &[&str] = &["libc.so", "libc.musl-", "ld-musl-"];
