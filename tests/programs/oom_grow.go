// Takes memory until it is killed for it, in main.leak <- main.main.
package main

const step = 64 << 10

var kept [][]byte

//go:noinline
func touch(bytes []byte) int {
	sum := 0
	for i := 0; i < len(bytes); i += 4096 {
		bytes[i] = 1
		sum += int(bytes[i])
	}
	return sum
}

//go:noinline
func leak() int {
	for {
		bytes := make([]byte, step)
		kept = append(kept, bytes)
		if touch(bytes) == 0 {
			return 0
		}
	}
}

func main() {
	println(leak())
}
