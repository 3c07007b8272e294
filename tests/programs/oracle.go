// oracle MODE REPORT: MODE is `listen` or `exit`.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func boottime() int64 {
	const clockBoottime = 7
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(97)
	}
}

func main() {
	mainNs := boottime()
	listens := os.Args[1] == "listen"
	if listens {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		check(err)
		defer listener.Close()
	}
	readyNs := boottime()
	stat, err := os.ReadFile("/proc/self/stat")
	check(err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	report, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	check(err)
	_, err = fmt.Fprintf(report, "{\"main_ns\":%d,\"ready_ns\":%d,\"pid\":%d,\"start_ticks\":%s}\n",
		mainNs, readyNs, os.Getpid(), fields[19])
	check(err)
	if listens {
		time.Sleep(200 * time.Millisecond)
	}
}
