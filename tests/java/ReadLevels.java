// Opens FILE as QuPath does and prints one line of what the metadata says. With a FOLDER also writes every resolution
// to FOLDER/LEVEL.rgb: width and height as two big-endian integers, then interleaved RGB bytes.
import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import loci.common.DebugTools;
import loci.formats.ImageReader;
import loci.formats.ome.OMEPyramidStore;
import ome.units.UNITS;

public class ReadLevels {
  public static void main(String[] arguments) throws Exception {
    DebugTools.setRootLevel("ERROR");
    OMEPyramidStore metadata = new OMEPyramidStore();
    try (ImageReader reader = new ImageReader()) {
      reader.setFlattenedResolutions(false);
      reader.setMetadataStore(metadata);
      reader.setId(arguments[0]);
      System.out.printf(
          "series=%d levels=%d rgb=%b mpp=%s,%s objective=%s name=%s%n",
          reader.getSeriesCount(), reader.getResolutionCount(), reader.isRGB(),
          metadata.getPixelsPhysicalSizeX(0).value(UNITS.MICROMETER),
          metadata.getPixelsPhysicalSizeY(0).value(UNITS.MICROMETER),
          metadata.getObjectiveNominalMagnification(0, 0), metadata.getImageName(0));
      for (int level = 0; arguments.length > 1 && level < reader.getResolutionCount(); level++) {
        reader.setResolution(level);
        write(reader, Path.of(arguments[1], level + ".rgb"));
      }
    }
  }

  private static void write(ImageReader reader, Path path) throws Exception {
    int width = reader.getSizeX();
    int height = reader.getSizeY();
    byte[] pixels = reader.openBytes(0, 0, 0, width, height);
    int plane = width * height;
    try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(path)))) {
      out.writeInt(width);
      out.writeInt(height);
      if (reader.isInterleaved()) {
        out.write(pixels);
      } else {
        for (int i = 0; i < plane; i++) {
          for (int channel = 0; channel < 3; channel++) {
            out.write(pixels[channel * plane + i]);
          }
        }
      }
    }
  }
}
