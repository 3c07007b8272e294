import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/** Oracle MODE REPORT: MODE is `listen` or `exit`. Its clock is CLOCK_MONOTONIC, and says so. */
final class Oracle {
    public static void main(String[] arguments) throws Exception {
        long mainNs = System.nanoTime();
        boolean listens = arguments[0].equals("listen");
        ServerSocket listener =
                listens ? new ServerSocket(0, 16, InetAddress.getLoopbackAddress()) : null;
        long readyNs = System.nanoTime();
        String stat = Files.readString(Path.of("/proc/self/stat"));
        String ticks = stat.substring(stat.lastIndexOf(')') + 2).split(" ")[19];
        String line = "{\"clock\":\"monotonic\",\"main_ns\":" + mainNs + ",\"ready_ns\":" + readyNs
                + ",\"pid\":" + ProcessHandle.current().pid() + ",\"start_ticks\":" + ticks + "}\n";
        Files.writeString(Path.of(arguments[1]), line, StandardOpenOption.CREATE,
                StandardOpenOption.APPEND);
        if (listener != null) {
            Thread.sleep(200);
            listener.close();
        }
    }
}
