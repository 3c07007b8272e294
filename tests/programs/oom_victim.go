// Dies for want of memory, in a place that it knows: `fault PROCS REPORT`, as oom_victim.c. Its
// callers are told by the runtime, which goes by its own tables.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

const memory = 1 << 30

func check(err error) {
	if err != nil {
		panic(err)
	}
}

//go:noinline
func tell(report string) {
	// Callers, tell and eat are not eat's callers.
	var callers [4]uintptr
	count := runtime.Callers(3, callers[:])
	var own [1]uintptr
	runtime.Callers(2, own[:])
	entry := runtime.FuncForPC(own[0]).Entry()
	end := own[0]
	for runtime.FuncForPC(end) != nil && runtime.FuncForPC(end).Entry() == entry {
		end++
	}
	line := fmt.Sprintf("{\"pid\":%d,\"begin\":%d,\"end\":%d,\"callers\":%s}\n", os.Getpid(), entry, end,
		strings.ReplaceAll(fmt.Sprint(callers[:count]), " ", ","))
	file, err := os.OpenFile(report, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0600)
	check(err)
	_, err = file.WriteString(line)
	check(err)
}

//go:noinline
func eat(report string) int {
	const noReserve = 0x4000
	bytes, err := syscall.Mmap(-1, 0, memory, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|noReserve)
	check(err)
	tell(report)
	for at := 0; at < len(bytes); at += 4096 {
		bytes[at] = 1
	}
	return len(bytes)
}

//go:noinline
func third(report string) int { return eat(report) + 1 }

//go:noinline
func second(report string) int { return third(report) + 1 }

//go:noinline
func first(report string) int { return second(report) + 1 }

func main() {
	check(os.WriteFile(os.Args[2], []byte("0"), 0))
	fmt.Println(first(os.Args[3]))
}
